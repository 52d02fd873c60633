"""Packing changes what is computed at once, never what is computed."""

import torch

from kosmos2.data.collate import Batch, collate, joined, pack
from kosmos2.data.lessons import Lesson
from kosmos2.data.patches import unknown
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig

CONFIG = ModelConfig(
    text=TextConfig(
        vocab_size=60, width=16, feedforward_width=32, num_layers=2, num_heads=2, dropout=0.0
    ),
    vision=VisionConfig(
        width=8, feedforward_width=16, num_layers=1, num_heads=2, image_size=8, patch_size=4
    ),
    num_latents=3,
)
PREFIX = ((0, 20, 4, 5, 6, 21), (False, False, True, True, True, False))
LESSONS = (
    Lesson(prompt=(), answer=(30, 31, 32, 2)),
    Lesson(prompt=(40, 41), answer=(42, 2)),
    Lesson(prompt=(50,), answer=(51, 52, 53, 54, 2)),
)


def target_logits(network: Network, batch: Batch) -> torch.Tensor:
    latents_BQD = network.encode_images(batch.pixels_ICYX.double() / 255)
    embeds_BTD = network.embed(batch.ids_BT, batch.image_mask_BT, latents_BQD)
    hidden_BTD = network.decode(embeds_BTD, batch.positions_BT, batch.attention_mask())
    return network.logits(hidden_BTD.flatten(0, 1)[batch.source_L])


@torch.no_grad()
def test_a_packed_lesson_is_predicted_as_if_it_stood_alone() -> None:
    torch.manual_seed(0)
    network = Network(CONFIG).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pixels_CYX = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)

    packed = collate([pack(pixels_CYX, unknown(2), PREFIX, LESSONS)], multiple=8)
    alone = [
        collate([pack(pixels_CYX, unknown(2), PREFIX, [lesson])], multiple=1) for lesson in LESSONS
    ]

    expected_LV = torch.cat([target_logits(network, batch) for batch in alone])
    torch.testing.assert_close(target_logits(network, packed), expected_LV)


@torch.no_grad()
def test_samples_in_one_row_are_predicted_as_if_each_stood_alone() -> None:
    torch.manual_seed(0)
    network = Network(CONFIG).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pixels_NCYX = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    rows = [
        pack(pixels_CYX, unknown(2), PREFIX, LESSONS[number:])
        for number, pixels_CYX in enumerate(pixels_NCYX)
    ]

    together = collate([joined(rows[:2]), rows[2]], multiple=8)
    expected_LV = torch.cat([target_logits(network, collate([row], multiple=1)) for row in rows])
    torch.testing.assert_close(target_logits(network, together), expected_LV)
    assert together.num_samples == 3
    assert together.target_L.tolist() == [target for row in rows for target in row.targets]


def test_only_answers_are_targets_each_predicted_by_the_token_before_it() -> None:
    row = pack(torch.zeros(3, 8, 8, dtype=torch.uint8), unknown(2), PREFIX, LESSONS)

    assert row.targets == [30, 31, 32, 2, 42, 2, 51, 52, 53, 54, 2]
    read = [row.ids[source] for source in row.sources]
    assert read == [21, 30, 31, 32, 41, 42, 50, 51, 52, 53, 54]


def test_one_lesson_alone_is_the_published_sequence() -> None:
    # B.3 of the data specification: all but the last token is read, positions count from 2.
    row = pack(torch.zeros(3, 8, 8, dtype=torch.uint8), unknown(2), PREFIX, LESSONS[:1])

    assert row.ids == [*PREFIX[0], 30, 31, 32]
    assert row.positions == list(range(2, 2 + len(row.ids)))


def test_padding_is_never_a_target_nor_seen() -> None:
    pixels_CYX = torch.zeros(3, 8, 8, dtype=torch.uint8)
    short = pack(pixels_CYX, unknown(2), PREFIX, LESSONS[:1])
    long = pack(pixels_CYX, unknown(2), PREFIX, LESSONS)

    batch = collate([short, long], multiple=16)

    assert batch.ids_BT.shape[1] % 16 == 0
    kept_BT = batch.lesson_BT >= 0
    assert not (batch.attention_mask() & ~kept_BT[:, None, :])[kept_BT].any()
    assert kept_BT.flatten()[batch.source_L].all()
    assert batch.target_L.tolist() == [*short.targets, *long.targets]

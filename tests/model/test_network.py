"""Laws of the whole network: where images go, what is mutated, what the loss counts."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from model_cases import TINY, image_mask_at, random_ids, random_network, random_pixels

from kosmos2.errors import ConfigError, RequestError
from kosmos2.model import Network, TextConfig, VisionConfig, masked_loss


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(TINY).double()


@torch.no_grad()
def test_embeddings_as_input_equal_ids_as_input_and_are_not_written_to(network: Network) -> None:
    ids_BT = random_ids(TINY, 2, 8)
    image_mask_BT = image_mask_at(8, 1, num_latents=3).expand(2, -1)
    pixels_NCYX = random_pixels(TINY, 2).double()
    expected = network(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT)

    embeds_BTD = network.embed(ids_BT, image_mask_BT, network.encode_images(pixels_NCYX))
    before_BTD = embeds_BTD.clone()
    output = network(embeds_BTD=embeds_BTD)

    assert torch.equal(embeds_BTD, before_BTD)
    torch.testing.assert_close(output.logits_BTV, expected.logits_BTV)


@torch.no_grad()
def test_embedding_images_leaves_the_latents_and_the_embedding_as_they_were(
    network: Network,
) -> None:
    latents_NQD = network.encode_images(random_pixels(TINY, 1).double())
    before = latents_NQD.clone(), network.decoder.embedding.weight.clone()
    network.embed(random_ids(TINY, 1, 5), image_mask_at(5, 1, num_latents=3)[None], latents_NQD)
    assert torch.equal(latents_NQD, before[0])
    assert torch.equal(network.decoder.embedding.weight, before[1])


@torch.no_grad()
def test_images_fill_their_places_row_by_row_in_order(network: Network) -> None:
    latents_NQD = network.encode_images(random_pixels(TINY, 3).double())
    ids_BT = random_ids(TINY, 2, 10)
    image_mask_BT = torch.stack(
        [image_mask_at(10, 5, num_latents=3), image_mask_at(10, 0, 4, num_latents=3)]
    )
    embeds_BTD = network.embed(ids_BT, image_mask_BT, latents_NQD)
    assert torch.equal(embeds_BTD[0, 5:8], latents_NQD[0])
    assert torch.equal(embeds_BTD[1, 0:3], latents_NQD[1])
    assert torch.equal(embeds_BTD[1, 4:7], latents_NQD[2])
    words_BTD = network.embed(ids_BT)
    assert torch.equal(embeds_BTD[~image_mask_BT], words_BTD[~image_mask_BT])


@torch.no_grad()
def test_an_image_encoded_in_a_batch_equals_the_image_alone(network: Network) -> None:
    pixels_NCYX = random_pixels(TINY, 3).double()
    together_NQD = network.encode_images(pixels_NCYX)
    alone = [network.encode_images(pixels_CYX[None])[0] for pixels_CYX in pixels_NCYX]
    torch.testing.assert_close(together_NQD, torch.stack(alone))


@torch.no_grad()
def test_every_vision_feature_has_unit_length(network: Network) -> None:
    features_NPE = network.vision(random_pixels(TINY, 2).double())
    torch.testing.assert_close(
        features_NPE.norm(dim=-1), torch.ones(2, TINY.vision.num_positions).double()
    )


@torch.no_grad()
def test_latents_as_input_equal_pixels_as_input(network: Network) -> None:
    ids_BT = random_ids(TINY, 1, 8)
    image_mask_BT = image_mask_at(8, 2, num_latents=3)[None]
    pixels_NCYX = random_pixels(TINY, 1).double()
    latents_NQD = network.encode_images(pixels_NCYX)
    torch.testing.assert_close(
        network(ids_BT, latents_NQD=latents_NQD, image_mask_BT=image_mask_BT).logits_BTV,
        network(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT).logits_BTV,
    )


def test_the_number_of_image_places_must_be_that_of_the_vectors(network: Network) -> None:
    latents_NQD = torch.zeros(2, 3, TINY.text.width).double()
    with pytest.raises(
        RequestError, match=r"3 image positions, the images bring 6 .*2 images of 3"
    ):
        network.embed(random_ids(TINY, 1, 5), image_mask_at(5, 0, num_latents=3)[None], latents_NQD)


def test_images_need_a_mask_and_a_mask_needs_images(network: Network) -> None:
    ids_BT = random_ids(TINY, 1, 5)
    with pytest.raises(RequestError, match="both their latents and the mask"):
        network.embed(ids_BT, None, torch.zeros(1, 3, TINY.text.width).double())
    with pytest.raises(RequestError, match="both their latents and the mask"):
        network.embed(ids_BT, image_mask_at(5, 0, num_latents=3)[None])


def test_ids_and_embeddings_together_are_refused(network: Network) -> None:
    ids_BT = random_ids(TINY, 1, 5)
    with pytest.raises(RequestError, match="either ids_BT or embeds_BTD"):
        network(ids_BT, embeds_BTD=network.embed(ids_BT))
    with pytest.raises(RequestError, match="either ids_BT or embeds_BTD"):
        network()


def test_pictures_of_another_size_are_refused_with_the_way_out(network: Network) -> None:
    with pytest.raises(RequestError, match=r"\(N, 3, 28, 28\), got \(1, 3, 32, 32\).*preprocess"):
        network.encode_images(torch.zeros(1, 3, 32, 32).double())


def test_the_loss_is_the_weighted_mean_of_the_targets_cross_entropies() -> None:
    logits_BTV = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    ids_BT = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 0]])
    weight_BT = torch.tensor([[9.0, 0.0, 1.0, 0.5, 0.0], [9.0, 1.0, 0.0, 0.0, 2.0]])

    total, count = 0.0, 0.0
    for row in range(2):
        for place in range(1, 5):
            probabilities_V = (
                logits_BTV[row, place - 1].exp() / logits_BTV[row, place - 1].exp().sum()
            )
            weight = float(weight_BT[row, place])
            total -= weight * float(probabilities_V[ids_BT[row, place]].log())
            count += weight
    loss = masked_loss(logits_BTV, ids_BT, weight_BT)
    assert loss.item() == pytest.approx(total / count, rel=1e-6)


def test_a_batch_without_targets_has_no_loss_and_no_gradient() -> None:
    logits_BTV = torch.randn(1, 4, 7, requires_grad=True)
    loss = masked_loss(logits_BTV, torch.tensor([[1, 2, 3, 4]]), torch.zeros(1, 4))
    loss.backward()
    assert loss.item() == 0
    assert logits_BTV.grad is not None and not logits_BTV.grad.any()


def test_dropout_works_in_training_alone() -> None:
    network = random_network(TINY)
    ids_BT = random_ids(TINY, 1, 6)
    with torch.no_grad():
        assert torch.equal(network(ids_BT).logits_BTV, network(ids_BT).logits_BTV)
        network.train()
        assert not torch.equal(network(ids_BT).logits_BTV, network(ids_BT).logits_BTV)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextConfig(width=30, num_heads=4), r"text.width \(30\).*text.num_heads \(4\)"),
        (lambda: TextConfig(width=3, num_heads=3), r"text.width \(3\).*sine and cosine"),
        (lambda: TextConfig(width=2, num_heads=1), r"text.width \(2\) must be at least 4"),
        (lambda: VisionConfig(width=0), r"vision.width \(0\)"),
        (lambda: VisionConfig(image_size=225), r"vision.image_size \(225\).*\(14\)"),
        (lambda: replace(TINY, num_latents=0), r"num_latents \(0\)"),
    ],
)
def test_sizes_that_cannot_work_are_refused_with_their_names_and_values(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make()

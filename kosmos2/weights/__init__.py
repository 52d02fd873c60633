"""Files to networks and back: the Hugging Face folder, the released fairseq container, names.

No prompts, no pictures, no sampling. `pretrained` turns a name or a path into a ready network.
"""

from kosmos2.weights.pretrained import Pretrained, load_pretrained, resolve

__all__ = ["Pretrained", "load_pretrained", "resolve"]

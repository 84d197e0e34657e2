"""Hyper-parameters of the nets that come with the package. They stand apart from the nets, so that a config is read without torch.

The nets of the user bring their own, and torch is imported to read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field as Key
from pydantic import model_validator

from diet_ray.settings import Settings

if TYPE_CHECKING:
    import torch

    from diet_ray.candidates.layers import MLP

Activation = Literal["relu", "gelu", "silu"]

Hidden = Annotated[tuple[Annotated[int, Key(ge=1, le=8192)], ...], Key(min_length=1, max_length=8)]
"""Widths of the hidden layers, first to last."""

Dropout = Annotated[float, Key(ge=0, lt=1)]
"""Probability p with which a value is set to 0; the others are divided by 1 - p, which preserves the mean."""


class DeepParams(Settings):
    """Hyper-parameters of a net's deep part."""

    hidden: Hidden = (256, 128)
    """Widths of the hidden layers, first to last."""
    activation: Activation = "relu"
    """Non-linearity after each hidden layer."""
    dropout: Dropout = 0.0
    """Probability with which each output of a hidden layer is set to 0, in training only (Srivastava et al. 2014)."""

    def mlp(self, n_in: int, n_out: int, generator: torch.Generator) -> MLP:
        """The deep part, `[B, n_in] -> [B, n_out]`."""
        from diet_ray.candidates.layers import MLP

        return MLP(n_in, self.hidden, n_out, self.activation, generator, dropout=self.dropout)


class LRParams(Settings):
    """LR has no hyper-parameters."""


class FMParams(Settings):
    """FM has no hyper-parameters: its rank is the width of the embeddings."""


class DCNv2Params(DeepParams):
    """Hyper-parameters of DCN-V2."""

    cross_layers: int = Key(default=3, ge=1, le=8)
    """Number of cross layers: the highest degree of the crosses is one more."""
    rank: int = Key(default=32, ge=0, le=4096)
    """Rank r of each cross layer's matrix `U V^T`; 0 for a full F*d x F*d matrix."""
    structure: Literal["parallel", "stacked"] = "parallel"
    """`parallel`: crosses and MLP side by side, concatenated; `stacked`: the MLP reads the crosses."""


class DINParams(DeepParams):
    """Hyper-parameters of DIN."""

    target: str = Key(min_length=1)
    """The field whose value is the query of the attention, such as the item that is shown."""
    sequence: str = Key(min_length=1)
    """The unpooled sequence field with the keys; best a history of the target's field, so that both share embeddings."""
    attention_hidden: Hidden = (36,)
    """Widths of the hidden layers of the attention unit."""
    activation: Activation = "silu"
    """Non-linearity after each hidden layer, of the attention unit too."""


class GDCNParams(DeepParams):
    """Hyper-parameters of GDCN."""

    cross_layers: int = Key(default=3, ge=1, le=8)
    """Number of gated cross layers: the highest degree of the crosses, not counting gates, is one more."""
    structure: Literal["parallel", "stacked"] = "parallel"
    """`parallel`: crosses and MLP side by side (GDCN-P); `stacked`: the MLP reads the crosses (GDCN-S)."""


class FinalMLPParams(DeepParams):
    """Hyper-parameters of FinalMLP."""

    second_hidden: Hidden = (128, 128)
    """Widths of the second stream's hidden layers; `hidden` are those of the first."""
    gate_hidden: Hidden = (64,)
    """Widths of the hidden layers of each stream's gate."""
    heads: int = Key(default=4, ge=1, le=64)
    """k, number of equal parts into which the output of each stream is split; it must divide the last width of both."""

    @model_validator(mode="after")
    def _divisible(self) -> FinalMLPParams:
        for key, width in (("hidden", self.hidden[-1]), ("second_hidden", self.second_hidden[-1])):
            if width % self.heads:
                raise ValueError(f"heads ({self.heads}) must divide the last width of {key} ({width})")
        return self


class AutoIntParams(DeepParams):
    """Hyper-parameters of AutoInt+."""

    attention_layers: int = Key(default=2, ge=1, le=8)
    """Number of interacting (self-attention) layers."""
    heads: int = Key(default=2, ge=1, le=16)
    """Attention heads per layer."""
    head_dim: int = Key(default=8, ge=1, le=256)
    """Width of one head; a layer's output has `heads * head_dim` numbers per field."""


class XDeepFMParams(DeepParams):
    """Hyper-parameters of xDeepFM."""

    cin: Hidden = (32, 32)
    """H_k, feature maps of each layer of the interaction network; layer k has crosses of degree k + 1."""


class WukongParams(DeepParams):
    """Hyper-parameters of WuKong."""

    layers: int = Key(default=2, ge=1, le=8)
    """Number of WuKong layers."""
    fmb: int = Key(default=8, ge=1, le=512)
    """n_F, number of output embeddings of a layer's factorisation-machine block."""
    lcb: int = Key(default=8, ge=1, le=512)
    """n_L, number of output embeddings of a layer's linear-compression block."""
    rank: int = Key(default=8, ge=0, le=512)
    """k of the projected interactions `X X^T Y`, `Y: n x k`; 0 for the full `X X^T`."""
    fmb_hidden: Hidden = (128,)
    """Widths of the hidden layers of each factorisation-machine block's MLP."""
    hidden: Hidden = (128,)
    """Widths of the hidden layers of the final MLP."""
    dropout: Dropout = 0.0
    """Probability with which each output of a hidden layer of any of the MLPs is set to 0, in training only."""


PARAMS: dict[str, type[Settings]] = {
    "autoint": AutoIntParams,
    "dcnv2": DCNv2Params,
    "deepfm": DeepParams,
    "din": DINParams,
    "dlrm": DeepParams,
    "dnn": DeepParams,
    "finalmlp": FinalMLPParams,
    "fm": FMParams,
    "gdcn": GDCNParams,
    "lr": LRParams,
    "wukong": WukongParams,
    "xdeepfm": XDeepFMParams,
}
"""The hyper-parameters of each architecture that stands here."""

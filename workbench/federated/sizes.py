"""Models of 135 M to 70 B parameters by their widths: what has which shape, without a model."""

from dataclasses import dataclass

from workbench.federated.options.compression import Spec, Specs


@dataclass(frozen=True)
class ModelSize:
    """A model of Llama's architecture, by its widths.

    Parameters
    ----------
    layers, d_model, kv_width, d_ff, vocab : int
        Layers; width; width of all keys of a layer; inner width of the MLP; tokens.
    tied : bool
        Whether input and output embedding are one matrix.
    source : str
        Where the numbers are from.
    """

    name: str
    layers: int
    d_model: int
    kv_width: int
    d_ff: int
    vocab: int
    tied: bool
    source: str

    @property
    def parameters(self) -> int:
        """All weights, tied ones once."""
        d, ff = self.d_model, self.d_ff
        layer = 2 * d * d + 2 * d * self.kv_width + 3 * d * ff + 2 * d
        return self.layers * layer + d + (1 if self.tied else 2) * self.vocab * d

    def specs(self, tune: str, rank: int) -> Specs:
        """Names and shapes of what is trained: LoRA on queries and values, or all weights."""
        d, kv, ff = self.d_model, self.kv_width, self.d_ff
        named: dict[str, tuple[int, ...]] = {}
        for i in range(self.layers):
            layer = f"model.layers.{i}"
            if tune == "lora":
                for name, width in (("q", d), ("v", kv)):
                    adapted = f"base_model.model.{layer}.self_attn.{name}_proj"
                    named[f"{adapted}.lora_A.weight"] = (rank, d)
                    named[f"{adapted}.lora_B.weight"] = (width, rank)
                continue
            for name, width in (("q", d), ("k", kv), ("v", kv), ("o", d)):
                named[f"{layer}.self_attn.{name}_proj.weight"] = (width, d)
            named |= {f"{layer}.mlp.{name}_proj.weight": (ff, d) for name in ("gate", "up")}
            named[f"{layer}.mlp.down_proj.weight"] = (d, ff)
            for name in ("input", "post_attention"):
                named[f"{layer}.{name}_layernorm.weight"] = (d,)
        if tune == "full":
            ends = {"model.embed_tokens.weight": (self.vocab, d), "model.norm.weight": (d,)}
            named |= ends | ({} if self.tied else {"lm_head.weight": (self.vocab, d)})
        return {name: Spec(shape) for name, shape in named.items()}


_SMOLLM2 = "config.json of HuggingFaceTB/SmolLM2-{}"
_LLAMA3 = "Grattafiori et al., arXiv 2407.21783, table 3"
#: 135 M to 70 B parameters.
MODELS = (
    ModelSize("SmolLM2-135M", 30, 576, 192, 1536, 49152, True, _SMOLLM2.format("135M")),
    ModelSize("SmolLM2-360M", 32, 960, 320, 2560, 49152, True, _SMOLLM2.format("360M")),
    ModelSize("SmolLM2-1.7B", 24, 2048, 2048, 8192, 49152, True, _SMOLLM2.format("1.7B")),
    ModelSize("Llama-3-8B", 32, 4096, 1024, 14336, 128256, False, _LLAMA3),
    ModelSize("Llama-3-70B", 80, 8192, 1024, 28672, 128256, False, _LLAMA3),
)

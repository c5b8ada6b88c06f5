"""Distillation: a network learns from the probabilities of a trained one, on the same distorted images."""

import hashlib
from typing import Annotated

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from pydantic import Field
from torch import Tensor

from mnist_lab.config.keys import DATA_CONTENT
from mnist_lab.config.settings import differing_settings
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value, shorten
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.deployed import InferenceModule
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.training.build import instantiate_node, load_trained_model

SPLIT = ("data.val_size", "data.split_seed")  # These say which images are held out.


class Teacher:
    """A trained network whose probabilities another one learns.

    This is distillation (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015). The teacher sees
    the images as augmentation has changed them, with its own size and normalisation, in eval mode and without views
    (Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", 2022).

    Args:
        run: a finished run, or an ensemble of runs, named as on the command line.
        weight: w, the share of the teacher in the loss.
        temperature: T; the probabilities of both networks are those of their scores divided by T.
        sha256: checksum of the tested weights; None for any.
    """

    def __init__(
        self,
        *,
        run: str,
        weight: Annotated[float, Field(ge=0, le=1)] = 0.9,
        temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        sha256: str | None = None,
    ) -> None:
        self.run, self.weight, self.temperature, self.sha256 = run, weight, temperature, sha256
        self.mean, self.std = 0.0, 1.0
        self.network: InferenceModule | None = None

    def load(self, cfg: DictConfig) -> str:
        """Load the network for a run with a configuration, which it must fit; return the checksum of its weights."""
        try:
            run = Run.find(self.run, cfg.runs_dir)
        except UsageError as error:
            raise UsageError(f"distillation.run={error}") from error
        key = f"distillation.run={self.run}"
        if (status := run.info["status"]) != RunState.FINISHED:
            raise UsageError(f"{key}: is not finished (status: {status})")
        if cfg.data.mean is None:  # Each image is then normalised by its own mean, which is not known here.
            raise UsageError(f"{key}: needs data.mean and data.std, since a teacher normalises the images anew")
        for name, (own, teachers) in differing_settings(cfg, run.config).items():
            if DATA_CONTENT.match(name) or (cfg.data.val_size and name in SPLIT):
                reason = f"was trained with {name}={shorten(format_value(teachers))}, not {shorten(format_value(own))}"
                remedy = "; it may have learned images that this run holds out" if name in SPLIT else ""
                raise UsageError(f"{key}: {reason}{remedy}")
        network = load_trained_model(run)
        weights = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
        found = hashlib.sha256(weights).hexdigest()
        if self.sha256 not in (None, found):
            raise UsageError(f"{key}: its weights are not those that this run began with")
        for module in network.modules():
            if isinstance(module, Classifier):
                module.views = None
        self.network = InferenceModule(network, run.config.data.mean, run.config.data.std).eval().requires_grad_(False)
        self.mean, self.std = cfg.data.mean, cfg.data.std
        return found

    def total_loss(self, loss: Tensor, images: Tensor, scores: Tensor) -> Tensor:
        """Return (1 - w) loss + w T² cross-entropy, (), with the teacher's probabilities as labels.

        Args:
            loss: the loss of the labels, ().
            images: the network's inputs, (B, 1, S, S).
            scores: its scores, (B, K): logits or log-probabilities.
        """
        with torch.no_grad():
            targets = self.scores(images).log_softmax(1).div(self.temperature).softmax(1)
        loss_of_teacher = F.cross_entropy(scores / self.temperature, targets) * self.temperature**2
        return (1 - self.weight) * loss + self.weight * loss_of_teacher

    def scores(self, images: Tensor) -> Tensor:
        """Return the teacher's scores, (B, K), for a network's inputs."""
        assert self.network is not None
        self.network.to(images.device)
        if images.shape[-1] != 28:
            images = F.interpolate(images, (28, 28), mode="bilinear", antialias=True)
        pixels = images.mul(self.std).add(self.mean).mul(255).round()
        return self.network.scores(pixels.squeeze(1))


def set_up_teacher(cfg: DictConfig, model: Classifier) -> None:
    """Give a network the configured teacher, and record the checksum of its weights in the configuration."""
    model.teacher = instantiate_node(cfg.get("distillation"), "distillation") or None
    if model.teacher is not None:
        OmegaConf.update(cfg, "distillation.sha256", model.teacher.load(cfg))

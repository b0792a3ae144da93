"""Looks into the network after a task: the quantities of `study.schema.DIAGNOSTICS`, one value a lane.

Nothing here acts on training, and every random draw is a function of (seed, purpose, task): a sweep with diagnostics and one
without give the same results to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from study import schema
from study.contracts import Experiment, Task
from study.lanes import Tensors, generator, norm, per_lane
from study.training import curvature, metrics
from study.training.curvature import Landscape
from study.training.metrics import evaluate
from study.training.minibatches import EarlierTask, Feed
from study.training.steps import Steps

LANES_AT_ONCE = 20
"""Whose landscapes are looked at together, which bounds the memory; it changes no lane's result."""

SRANK_SHARE = 0.99


def due(tasks: int, every: int) -> list[int]:
    """Indices of the tasks after which something is looked at that is due every so many tasks; 0: never."""
    return [index for index in range(tasks) if every and (index % every == 0 or index + 1 == tasks)]


class Diagnosis:
    """Looks into the lanes of one experiment, task after task."""

    def __init__(self, experiment: Experiment, steps: Steps) -> None:
        self._plan = experiment
        self._settings = experiment.diagnostics
        self._steps = steps
        initial = experiment.model.initial(experiment.seeds)
        self._shapes = {name: value.shape[1:] for name, value in initial.items()}
        self._initial = {name: value.to(experiment.device) for name, value in initial.items()}
        self._earlier: dict[int, EarlierTask] = {}

    def after(self, index: int, task: Task, feed: Feed, params: Tensors) -> dict[str, Tensor]:
        """What is due after a task, by name; of layers by `schema.layer_name`.

        Args:
            index: of the task.
            task, feed: the task and its images.
            params: after it, [lane, ...].

        Returns:
            float64 [lane] each, on the CPU; NaN where it is not known.
        """
        asked = self._settings
        units, curved = self._is_due(index, asked.units_every), self._is_due(index, asked.curvature_every)
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            if units:
                found |= self._weights(params)
            if units or curved:
                inputs, labels = feed.sample(self._plan.seeds, asked.images)
                seen = self._steps.training_on(params, feed)
                if units:
                    found |= self._units(seen, inputs)
                if curved:
                    found |= self._curvature(index, feed, seen, inputs, labels)
            if asked.forgetting_every:
                found |= self._forgetting(index, task, params)
        return {name: value.to("cpu", torch.float64) for name, value in found.items() if self._wants(name)}

    def _is_due(self, index: int, every: int) -> bool:
        return index in due(self._plan.tasks.count, every)

    def _wants(self, *names: str) -> bool:
        """Whether any of the quantities is not left out."""
        return any(name.split("/layer_")[0] not in self._settings.leave_out for name in names)

    def _layers(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each layer's name, and the names of its parameters."""
        hidden = [layer.incoming for layer in self._plan.model.hidden_layers]
        yield from ((str(i), names) for i, names in enumerate(hidden))
        inner = {name for names in hidden for name in names}
        yield "output", tuple(name for name in self._initial if name not in inner)

    def _weights(self, params: Tensors) -> dict[str, Tensor]:
        if not self._wants(schema.WEIGHT_NORM, schema.WEIGHT_DISTANCE):
            return {}
        found = {}
        for layer, names in self._layers():
            found[schema.layer_name(schema.WEIGHT_NORM, layer)] = norm({name: params[name] for name in names})
            moved = {name: params[name] - self._initial[name] for name in names}
            found[schema.layer_name(schema.WEIGHT_DISTANCE, layer)] = norm(moved)
        return found

    def _units(self, params: Tensors, inputs: Tensor) -> dict[str, Tensor]:
        ranks = (schema.EFFECTIVE_RANK, schema.STABLE_RANK, schema.SRANK)
        if not self._plan.model.hidden_layers or not self._wants(schema.DEAD_UNITS, schema.DORMANT_UNITS, *ranks):
            return {}
        _, hidden = self._plan.model.forward(params, inputs)
        sound = torch.stack([layer.isfinite().flatten(1).all(dim=1) for layer in hidden]).all(dim=0)
        hidden = [layer.where(per_lane(sound, layer), 0) for layer in hidden]
        found = {}
        for i, layer in enumerate(hidden):
            found[schema.layer_name(schema.DEAD_UNITS, str(i))] = metrics.dead_units(layer)
            dormant = metrics.dormant_units(layer, self._settings.dormant_below)
            found[schema.layer_name(schema.DORMANT_UNITS, str(i))] = dormant
        if self._wants(*ranks):
            values = metrics.singular_values(hidden[-1])
            found[schema.EFFECTIVE_RANK] = metrics.effective_rank(values)
            found[schema.STABLE_RANK] = metrics.stable_rank(values)
            found[schema.SRANK] = metrics.srank(values, SRANK_SHARE)
        return {name: value.where(sound, torch.nan) for name, value in found.items()}

    def _curvature(self, index: int, feed: Feed, params: Tensors, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hessian = (schema.HESSIAN_EIGENVALUE, schema.HESSIAN_TRACE, schema.HESSIAN_TRACE_ERROR)
        if not self._wants(*hessian, schema.SAM_SHARPNESS, schema.GRADIENT_NORM):
            return {}
        pieces = []
        for start in range(0, len(labels), LANES_AT_ONCE):
            some = slice(start, start + LANES_AT_ONCE)
            here = {name: value[some] for name, value in params.items()}
            landscape = Landscape(self._plan.model, here, inputs[some], labels[some])
            piece = {
                schema.SAM_SHARPNESS: curvature.sam_sharpness(landscape, self._settings.rho),
                schema.GRADIENT_NORM: torch.linalg.vector_norm(landscape.gradient, dim=1),
            }
            dtype = landscape.gradient.dtype
            if self._wants(schema.HESSIAN_EIGENVALUE):
                (vector,) = self._random_vectors("eigenvalue", index, 1, feed, some, dtype)
                piece[schema.HESSIAN_EIGENVALUE] = curvature.largest_eigenvalue(landscape.hessian_product, vector)
            if self._wants(schema.HESSIAN_TRACE, schema.HESSIAN_TRACE_ERROR):
                probes = self._random_vectors("trace", index, self._settings.probes, feed, some, dtype)
                trace, error = curvature.hutchinson_trace(landscape.hessian_product, probes)
                piece |= {schema.HESSIAN_TRACE: trace, schema.HESSIAN_TRACE_ERROR: error}
            pieces.append(piece)
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _random_vectors(
        self, purpose: str, index: int, count: int, feed: Feed, some: slice, dtype: torch.dtype
    ) -> Iterator[Tensor]:
        """Vectors of random signs for some of the lanes, [lane, weight], the weights in the order of training."""
        draws = [generator(seed, purpose, index) for seed in self._plan.seeds[some]]
        for _ in range(count):
            signs = {
                name: torch.stack([torch.randint(0, 2, shape, generator=draw, dtype=torch.int8) for draw in draws])
                for name, shape in self._shapes.items()
            }
            vector = {name: value.to(self._plan.device, dtype) * 2 - 1 for name, value in signs.items()}
            yield curvature.flattened(self._steps.training_on(vector, feed, some))

    def _forgetting(self, index: int, task: Task, params: Tensors) -> dict[str, Tensor]:
        if not self._wants(schema.FIRST_TASK_ACCURACY, schema.EARLIER_TASKS_ACCURACY):
            return {}
        self._meet(index, task)
        if not self._is_due(index, self._settings.forgetting_every):
            return {}
        found = {schema.FIRST_TASK_ACCURACY: self._accuracy_now(0, params)}
        if index > 0 and self._wants(schema.EARLIER_TASKS_ACCURACY):
            earlier = torch.stack([self._accuracy_now(i, params) for i in range(index)])
            found[schema.EARLIER_TASKS_ACCURACY] = earlier.mean(dim=0)
        return found

    def _meet(self, index: int, task: Task) -> EarlierTask:
        self._earlier[index] = self._steps.earlier(task, self._settings.images)
        return self._earlier[index]

    def _accuracy_now(self, index: int, params: Tensors) -> Tensor:
        """Accuracy on the test images of a task, [lane]. After a resume the earlier tasks are built again."""
        task = self._earlier.get(index) or self._meet(index, self._plan.tasks.task(index))
        batches = task.batches(self._plan.dataset, len(self._plan.seeds))
        return evaluate(self._plan.model, self._steps.seeing(params, task.features), batches)

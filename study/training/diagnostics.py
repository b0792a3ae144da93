"""Diagnostics of the networks before and after a task.

These are the quantities of `study.schema.ONSET` and `DIAGNOSTICS`, one value per lane. Nothing here affects training, and every
random draw is a function of (seed, purpose, task). So a sweep gives the same results with and without diagnostics, to the last
bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from study import curvature, schema
from study.contracts import Experiment, Featured, Task
from study.curvature import Landscape
from study.gradients import MinibatchGradient
from study.lanes import Tensors, generator, norm, per_lane
from study.training import metrics
from study.training.metrics import evaluate
from study.training.minibatches import EarlierTask, Feed
from study.training.steps import Steps

LANES_AT_ONCE = {"cpu": 20, "cuda": 120}
"""Lanes whose loss landscapes are measured together, by device.

It bounds the memory and changes no result. A GPU takes hardly longer for more lanes.
"""

SRANK_SHARE = 0.99
"""Share of the sum of singular values that `srank` counts up to."""


def due(tasks: int, every: int) -> list[int]:
    """Task indices at which a diagnostic of that period runs.

    At the first task, then every `every` tasks, and at the last.

    Args:
        tasks: number of tasks.
        every: period in tasks; 0: never.
    """
    return [index for index in range(tasks) if every and (index % every == 0 or index + 1 == tasks)]


class NetworkDiagnostics:
    """The diagnostics of one experiment, task after task."""

    def __init__(self, experiment: Experiment, steps: Steps) -> None:
        self._experiment = experiment
        self._settings = experiment.diagnostics
        self._steps = steps
        initial = experiment.model.initial(experiment.seeds)
        self._shapes = {name: value.shape[1:] for name, value in initial.items()}
        self._initial = {name: value.to(experiment.device) for name, value in initial.items()}  # [lane, ...]
        self._earlier: dict[int, EarlierTask] = {}
        self._wanted = self._not_left_out(quantity.name for quantity in schema.DIAGNOSTICS)
        onset = self._not_left_out(quantity.name for quantity in schema.ONSET)
        self._wanted_at_onset = {name.removeprefix(schema.ONSET_PREFIX) for name in onset}
        # While a GPU trains on a task, another thread draws what the diagnostics after it need: that takes as long as they do.
        self._drawing = ThreadPoolExecutor(1) if experiment.device == "cuda" else None
        self._drawn: dict[int, Future[dict[str, list[Tensors]]]] = {}  # by task

    def before(self, index: int, feed: Feed, params: Tensors) -> dict[str, Tensor]:
        """The diagnostics due before the first step on a task.

        Empty if none is. See `onset`.
        """
        if self._drawing is not None and self._is_due(index, self._settings.curvature_every):
            self._drawn = {index: self._drawing.submit(self._signs_ahead, index)}
        return self.onset(index, feed, params) if self._is_due(index, self._settings.onset_every) else {}

    def onset(self, task: int, feed: Feed, params: Tensors) -> dict[str, Tensor]:
        """Diagnostics of any networks on a task's images.

        Those of layers are named by `schema.layer_name`.

        Args:
            task: index of the task.
            feed: its images.
            params: of the networks, [lane, ...]; the lanes are those of the experiment.

        Returns:
            The quantities of `schema.ONSET`, float64 [lane] each, on the CPU; NaN where a value is unknown.
        """
        wanted = self._wanted_at_onset
        with torch.no_grad():
            values = self._weights(wanted, params)
            inputs, labels, trained = self._sample(feed, params)
            values |= self._units(wanted, trained, inputs)
            values |= self._curvature(wanted, task, feed, trained, inputs, labels)
        return {schema.onset_name(name): value for name, value in _logged(wanted, values).items()}

    def after(self, index: int, task: Task, feed: Feed, params: Tensors) -> dict[str, Tensor]:
        """The diagnostics that are due after a task, by name.

        Those of layers are named by `schema.layer_name`.

        Args:
            index: of the task.
            task, feed: the task and its images.
            params: after the task, [lane, ...].

        Returns:
            The quantities of `schema.DIAGNOSTICS`, float64 [lane] each, on the CPU; NaN where a value is unknown.
        """
        settings, wanted = self._settings, self._wanted
        units_due, curvature_due = (self._is_due(index, n) for n in (settings.units_every, settings.curvature_every))
        values: dict[str, Tensor] = {}
        with torch.no_grad():
            if units_due:
                values |= self._weights(wanted, params)
            if units_due or curvature_due:
                inputs, labels, trained = self._sample(feed, params)
                if units_due:
                    values |= self._units(wanted, trained, inputs)
                if curvature_due:
                    values |= self._curvature(wanted, index, feed, trained, inputs, labels)
            if settings.forgetting_every:
                values |= self._forgetting(index, task, params)
        return _logged(wanted, values)

    def _is_due(self, index: int, every: int) -> bool:
        return index in due(self._experiment.tasks.count, every)

    def _not_left_out(self, names: Iterable[str]) -> set[str]:
        return set(names) - set(self._settings.leave_out)

    def _sample(self, feed: Feed, params: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        """The sample of a task, and parameters for its images.

        Inputs [lane, image, feature], labels [lane, image], and the parameters in the order of the inputs' features.
        """
        inputs, labels = feed.sample(self._experiment.seeds, self._settings.images)
        return inputs, labels, self._steps.for_training(params, feed)

    def _layers(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Name and parameter names of each layer."""
        hidden = [layer.incoming for layer in self._experiment.model.hidden_layers]
        yield from ((str(i), names) for i, names in enumerate(hidden))
        inner = {name for names in hidden for name in names}
        yield "output", tuple(name for name in self._initial if name not in inner)

    def _weights(self, wanted: Set[str], params: Tensors) -> dict[str, Tensor]:
        """Norms of each layer's weights and of their change."""
        values = {}
        for layer, names in self._layers():
            if schema.WEIGHT_NORM in wanted:
                values[schema.layer_name(schema.WEIGHT_NORM, layer)] = norm({name: params[name] for name in names})
            if schema.WEIGHT_DISTANCE in wanted:
                moved = {name: params[name] - self._initial[name] for name in names}
                values[schema.layer_name(schema.WEIGHT_DISTANCE, layer)] = norm(moved)
        return values

    def _units(self, wanted: Set[str], params: Tensors, inputs: Tensor) -> dict[str, Tensor]:
        """Dead units, dormant units and ranks.

        NaN in a lane with a non-finite activation.
        """
        ranks = {schema.EFFECTIVE_RANK, schema.STABLE_RANK, schema.SRANK}
        model = self._experiment.model
        if not model.hidden_layers or wanted.isdisjoint({schema.DEAD_UNITS, schema.DORMANT_UNITS, *ranks}):
            return {}
        _, hidden = model.forward(params, inputs)  # each [lane, image, unit]
        sound = torch.stack([layer.isfinite().flatten(1).all(dim=1) for layer in hidden]).all(dim=0)  # [lane]
        hidden = [layer.where(per_lane(sound, layer), 0) for layer in hidden]
        values = {}
        for i, (layer, names) in enumerate(zip(hidden, model.hidden_layers, strict=True)):
            values[schema.layer_name(schema.DEAD_UNITS, str(i))] = metrics.dead_units(layer, names.is_flat)
            dormant = metrics.dormant_units(layer, self._settings.dormant_below)
            values[schema.layer_name(schema.DORMANT_UNITS, str(i))] = dormant
        if not wanted.isdisjoint(ranks):
            features = hidden[-1]
            if model.hidden_layers[-1].outputs > 1 and isinstance(model, Featured):
                features = model.features(params, inputs)
                features = features.where(per_lane(sound, features), 0)
            singular = metrics.singular_values(features)  # [lane, feature]
            values[schema.EFFECTIVE_RANK] = metrics.effective_rank(singular)
            values[schema.STABLE_RANK] = metrics.stable_rank(singular)
            values[schema.SRANK] = metrics.srank(singular, SRANK_SHARE)
        return {name: value.where(sound, torch.nan) for name, value in values.items()}

    def _curvature(
        self, wanted: Set[str], index: int, feed: Feed, params: Tensors, inputs: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Hessian, sharpness and gradient of the sample's loss."""
        trace = {schema.HESSIAN_TRACE, schema.HESSIAN_TRACE_ERROR}
        gradient = {schema.GRADIENT_NORM, schema.GRADIENT_RELIABILITY}
        sharpness = {schema.SAM_SHARPNESS, schema.ADAPTIVE_SHARPNESS}
        if wanted.isdisjoint({schema.HESSIAN_EIGENVALUE, *trace, *gradient, *sharpness}):
            return {}
        pieces = []
        at_once = LANES_AT_ONCE[self._experiment.device]
        for start in range(0, len(labels), at_once):
            some = slice(start, start + at_once)
            some_params = {name: value[some] for name, value in params.items()}
            landscape = Landscape(self._experiment.model, some_params, inputs[some], labels[some])
            piece = {
                schema.SAM_SHARPNESS: curvature.sam_sharpness(landscape, self._settings.rho),
                schema.GRADIENT_NORM: torch.linalg.vector_norm(landscape.gradient, dim=1),
            }
            dtype = landscape.gradient.dtype
            if schema.ADAPTIVE_SHARPNESS in wanted:
                adaptive = curvature.adaptive_sharpness(landscape, self._settings.rho_adaptive)
                piece[schema.ADAPTIVE_SHARPNESS] = adaptive
            if schema.GRADIENT_RELIABILITY in wanted:
                piece[schema.GRADIENT_RELIABILITY] = self._reliability(some_params, inputs[some], labels[some])
            if schema.HESSIAN_EIGENVALUE in wanted:
                (vector,) = self._random_vectors("eigenvalue", index, 1, feed, some, dtype)
                piece[schema.HESSIAN_EIGENVALUE] = curvature.largest_eigenvalue(landscape.hessian_product, vector)
            if not wanted.isdisjoint(trace):
                probes = self._random_vectors("trace", index, self._settings.probes, feed, some, dtype)
                mean, error = curvature.hutchinson_trace(landscape.hessian_product, probes)
                piece |= {schema.HESSIAN_TRACE: mean, schema.HESSIAN_TRACE_ERROR: error}
            pieces.append(piece)
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _reliability(self, params: Tensors, inputs: Tensor, labels: Tensor) -> Tensor:
        """Reliability of the gradient of the sample's minibatches, [lane].

        The images that are left over are not used. NaN with fewer than two minibatches.
        """
        size = self._experiment.batch_size
        count = labels.shape[1] // size
        if count < 2:
            return torch.full((len(labels),), torch.nan, dtype=torch.float64, device=labels.device)
        batches = (slice(i * size, (i + 1) * size) for i in range(count))
        at = (MinibatchGradient(self._experiment.model, inputs[:, some], labels[:, some]) for some in batches)
        return curvature.gradient_reliability(
            curvature.flattened(gradient_at(params).gradient.tensors()) for gradient_at in at
        )

    def _random_vectors(
        self, purpose: str, index: int, count: int, feed: Feed, some: slice, dtype: torch.dtype
    ) -> Iterator[Tensor]:
        """Vectors of random signs for some lanes, [lane, weight].

        The weights are in the order of training.
        """
        ahead = self._drawn[index].result() if index in self._drawn else {}
        if purpose in ahead:
            drawn: Iterable[Tensors] = (
                {name: value[some] for name, value in signs.items()} for signs in ahead[purpose]
            )
        else:
            drawn = self._signs(purpose, index, count, some)
        for signs in drawn:
            vector = {name: value.to(self._experiment.device, dtype) * 2 - 1 for name, value in signs.items()}
            yield curvature.flattened(self._steps.for_training(vector, feed, some))

    def _signs(self, purpose: str, index: int, count: int, some: slice) -> Iterator[Tensors]:
        """Random bits for some lanes in the shapes of parameters, int8 [lane, ...]."""
        draws = [generator(seed, purpose, index) for seed in self._experiment.seeds[some]]
        for _ in range(count):
            yield {
                name: torch.stack([torch.randint(0, 2, shape, generator=draw, dtype=torch.int8) for draw in draws])
                for name, shape in self._shapes.items()
            }

    def _signs_ahead(self, index: int) -> dict[str, list[Tensors]]:
        """All random bits that the diagnostics after a task need, by purpose."""
        counts = {}
        if schema.HESSIAN_EIGENVALUE in self._wanted:
            counts["eigenvalue"] = 1
        if not self._wanted.isdisjoint({schema.HESSIAN_TRACE, schema.HESSIAN_TRACE_ERROR}):
            counts["trace"] = self._settings.probes
        return {purpose: list(self._signs(purpose, index, count, slice(None))) for purpose, count in counts.items()}

    def _forgetting(self, index: int, task: Task, params: Tensors) -> dict[str, Tensor]:
        """Current accuracy on the first task and on earlier tasks."""
        if self._wanted.isdisjoint({schema.FIRST_TASK_ACCURACY, schema.EARLIER_TASKS_ACCURACY}):
            return {}
        self._keep(index, task)
        if not self._is_due(index, self._settings.forgetting_every):
            return {}
        values = {schema.FIRST_TASK_ACCURACY: self._accuracy_now(0, params)}
        if index > 0 and schema.EARLIER_TASKS_ACCURACY in self._wanted:
            earlier = torch.stack([self._accuracy_now(i, params) for i in range(index)])  # [task, lane]
            values[schema.EARLIER_TASKS_ACCURACY] = earlier.mean(dim=0)
        return values

    def _keep(self, index: int, task: Task) -> EarlierTask:
        """Keeps some test images of a task for later tasks."""
        self._earlier[index] = self._steps.earlier(task, self._settings.images)
        return self._earlier[index]

    def _accuracy_now(self, index: int, params: Tensors) -> Tensor:
        """Current accuracy on the test images of a task, [lane].

        After a resume, tasks before it are built again.
        """
        task = self._earlier.get(index) or self._keep(index, self._experiment.tasks.task(index))
        batches = task.batches(self._experiment.dataset, len(self._experiment.seeds))
        return evaluate(self._experiment.model, self._steps.for_evaluation(params, task.features), batches)


def _logged(wanted: Set[str], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The wanted values, float64 on the CPU; NaN if not finite."""
    chosen = {name: value for name, value in values.items() if name.split("/layer_")[0] in wanted}
    double = {name: value.to("cpu", torch.float64) for name, value in chosen.items()}
    return {name: value.where(value.isfinite(), torch.nan) for name, value in double.items()}

"""Capability honesty: what is listed works, what is not listed is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fulmen_core.backend import Dtype, KVDtype, TrainPlan
from fulmen_core.errors import CapabilityError, UserError
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.backend.bench import DTYPES, LIMITS, QUANTIZATIONS, TOLERANCE, Bench, Model
from fulmen_testing.backend.trial import BackendTrial
from fulmen_testing.backend.verdicts import assert_right
from fulmen_testing.models import LIGHTNING, VARIANTS, random_model, save_random_model, with_changes
from fulmen_testing.plugin_process import probe_bare
from fulmen_testing.subject import GROUPS, Subject

KV_DTYPES: tuple[KVDtype, ...] = get_args(KVDtype)


class HonestyClaims(BackendTrial):
    """A backend says what it can do, as data."""

    def test_its_probe_answers_where_no_library_is_installed(self, subject: Subject) -> None:
        """The probe never raises, and gives a reason where nothing that it needs is installed"""
        ok, reason = probe_bare(GROUPS["backend"][1], subject.name, subject.entry("backend"))
        assert ok or reason, "it says no without a reason"

    def test_an_unavailable_backend_is_refused_with_its_reason(self, subject: Subject) -> None:
        """Where the probe says no, nothing is loaded: the refusal gives the probe's reason"""
        (record,) = [one for one in subject.registry.backend_records() if one.name == subject.name]
        assert record.state in ("active", "unavailable"), record.reason
        if record.state == "active":
            pytest.skip("it is available here")
        with pytest.raises(UserError, match="unavailable"):
            subject.registry.backend(subject.name)

    def test_its_capabilities_are_consistent(self, bench: Bench) -> None:
        """The capabilities are the same whenever asked for, and one entails what it needs"""
        can = bench.capabilities
        assert bench.backend.name == bench.subject.name
        assert bench.backend.capabilities() == can
        assert can.serve or can.train, "it can do nothing"
        assert can.serve == bool(can.formats) == bool(can.serve_dtypes)
        assert can.train == bool(can.train_dtypes)
        assert can.serve or not (can.quantizations or can.kv_dtypes or can.embed or can.adapters)
        assert {*can.serve_dtypes, *can.train_dtypes} <= set(DTYPES)
        assert set(can.quantizations) <= set(QUANTIZATIONS)
        assert set(can.kv_dtypes) <= set(KV_DTYPES)
        assert can.max_devices >= 1

    def test_every_kv_dtype_it_lists_serves(self, serving: Bench) -> None:
        """Every dtype of keys and values that it lists is one it runs in, beside some dtype that it serves in"""
        if not serving.capabilities.kv_dtypes:
            pytest.skip("it lists none")
        for kv_dtype in serving.capabilities.kv_dtypes:
            refused = []
            for dtype in sorted(serving.capabilities.serve_dtypes, key=DTYPES.index):
                model = serving.dense(dtype)
                try:
                    with serving.player(model, dtype=dtype, kv_dtype=kv_dtype) as player:
                        player.mix(3)
                        assert_right(serving, model, player, max(dtype, kv_dtype, key=TOLERANCE.__getitem__))
                    break
                except CapabilityError as error:
                    refused.append(str(error))
            assert len(refused) < len(serving.capabilities.serve_dtypes), refused

    def test_every_format_it_lists_is_served(self, serving: Bench) -> None:
        """Every format that it lists is one it serves, as far as something writes it"""
        others = [one for one in serving.capabilities.formats if one != serving.format]
        if not others:
            pytest.skip("it lists one, in which all claims are tried")
        for chosen in others:
            bench = Bench(serving.subject, serving.folder / chosen, serving.seed, serving.backend, chosen)
            with bench.player(bench.lightning()) as player:
                player.mix(3)
                assert_right(bench, bench.lightning(), player)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_dtype_it_does_not_list_is_refused(self, serving: Bench, model: Model, dtype: Dtype) -> None:
        """Serving in a dtype that is not listed is refused by name"""
        if dtype in serving.capabilities.serve_dtypes:
            pytest.skip("it lists it")
        with pytest.raises(CapabilityError, match=dtype):
            serving.load(model, dtype=dtype)

    def test_quantisations_it_does_not_list_are_refused(self, serving: Bench, model: Model) -> None:
        """Quantising on loading, or keys and values, in a way that is not listed is refused"""
        can = serving.capabilities
        for quantization in set(QUANTIZATIONS) - set(can.quantizations):
            with pytest.raises(CapabilityError):
                serving.load(model, quantize=quantization)
        for kv_dtype in set(KV_DTYPES) - {*can.kv_dtypes, serving.dtype}:
            with pytest.raises(CapabilityError):
                serving.load(model, kv_dtype=kv_dtype)

    def test_a_format_it_does_not_list_is_refused(self, serving: Bench, tmp_path: Path) -> None:
        """A model in a format that is not listed is refused, not guessed at"""
        other = save_random_model(LIGHTNING, serving.seed, tmp_path / "other")
        if "checkpoint" in serving.capabilities.formats:
            for weights in other.glob("*.safetensors"):
                weights.unlink()
        with pytest.raises(UserError):
            serving.load(Model("other", LIGHTNING, other, other))

    def test_a_variant_is_served_right_or_refused(self, serving: Bench) -> None:
        """What open checkpoints add to the plan is served right or refused by name"""
        refused = []
        for number, (name, changes) in enumerate(VARIANTS.items()):
            config = with_changes(LIGHTNING, changes)
            try:
                model = serving.model(f"variant {number}", config)
                with serving.player(model, salt=number) as player:
                    player.mix(4)
                    assert_right(serving, model, player)
            except CapabilityError as error:
                refused.append(f"{name}: {error}")
        if len(refused) == len(VARIANTS):
            pytest.skip("; ".join(refused))

    def test_hidden_states_are_given_or_refused(self, serving: Bench, model: Model) -> None:
        """Hidden states are those that the head sees; without `embed` they are refused"""
        batch = [SequenceStep(0, 0, [1, 2, 3, 4]), SequenceStep(1, 0, [5])]
        with serving.runner(model) as runner:
            if not serving.capabilities.embed:
                with pytest.raises(CapabilityError):
                    runner.hidden(batch)
                return
            hidden_RD = runner.hidden(batch)
            logits_RV = runner.step(batch)
        head_VD = model.reference().network.head_weight_VD.detach().numpy()
        assert abs(hidden_RD @ head_VD.T - logits_RV).max() < 1e-3 * abs(logits_RV).max()

    def test_adapters_are_refused_unless_listed(self, serving: Bench, model: Model, tmp_path: Path) -> None:
        """Without `adapters`, loading one and a runner that is to have some are refused"""
        if serving.capabilities.adapters:
            pytest.skip("it lists adapters")
        with pytest.raises(CapabilityError):
            serving.load(model, EngineLimits(1, 16, 8, adapters=1))
        with serving.runner(model) as runner, pytest.raises(CapabilityError):
            runner.load_adapter(tmp_path)

    def test_training_is_refused_unless_listed(self, bench: Bench) -> None:
        """Training, and training in a dtype that is not listed, is refused"""
        can = bench.capabilities
        network = random_model(LIGHTNING, bench.seed)
        for dtype in set(DTYPES) - set(can.train_dtypes):
            with pytest.raises(CapabilityError, match=dtype if can.train else "train"):
                bench.backend.prepare_training(network, TrainPlan(dtype=dtype))

    def test_a_context_beyond_the_models_is_cut_to_it(self, serving: Bench, model: Model) -> None:
        """A runner asked for more context than the model has says how much it gives"""
        limits = EngineLimits(2, 10 * model.config.max_position_embeddings, 32)
        with serving.runner(model, limits) as runner:
            assert runner.limits.max_context == model.config.max_position_embeddings
            assert runner.vocab_size == model.config.vocab_size
            assert runner.layout.slots >= limits.slots
        with serving.runner(model, LIMITS) as runner:
            assert runner.limits.max_context <= LIMITS.max_context

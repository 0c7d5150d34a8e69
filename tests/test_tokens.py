"""The token policy: spelling, its density, its draws, and what learners get of it."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ensemblerl.agents.base import Policy
from ensemblerl.agents.policies.alphabet import Alphabet, cell_of
from ensemblerl.agents.policies.network import inverse
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.problems import mixed
from ensemblerl.records import Cube
from ensemblerl.testing.cubes import FOUR, THREE, conditional_cube, example_cubes, real_cube
from ensemblerl.testing.density_laws import weights_law, within

TWELVE = np.linspace(0.0, 1.0, 13) ** 1.5


def long_ordinal_cube():
    """An ordinal of 12 uneven cells, a choice, and a real child of the choice."""
    kinds = ("ordinal", "categorical", "real")
    return Cube(kinds, (12, 3, 0), (TWELVE, THREE, None), ((), (), ((1, (0, 2)),)))


SMALL = {"conditional": conditional_cube(), "long ordinal": long_ordinal_cube()}
CUBES = {**example_cubes(), **SMALL, "the problem": mixed.space().cube}
all_cubes = pytest.mark.parametrize("cube", CUBES.values(), ids=CUBES)
small_cubes = pytest.mark.parametrize("cube", SMALL.values(), ids=SMALL)


def rng(seed=0):
    return np.random.default_rng(seed)


def trained(cube, *, scale=1.0, seed=0, **arguments):
    """A policy as far from the prior as ``scale`` says."""
    policy = TokenPolicy(cube, **arguments)
    learnt = {k: rng(seed + i).normal(size=policy.weights[k].shape) for i, k in enumerate("Vb")}
    learnt["V"] /= np.sqrt(policy.hidden)
    return policy.with_weights({**policy.weights, **{k: scale * v for k, v in learnt.items()}})


def small(cube, scale):
    return trained(cube, scale=scale, base=2, digits=2, hidden=6)


def random_tokens(alphabet, n, seed=0):
    return rng(seed).integers(0, alphabet.letters, (n, alphabet.n_tokens))


def strings(alphabet):
    """(m, T) every string once, with 0 for letters that do not count, and (m, T) which do."""
    tokens = np.array(list(itertools.product(*map(range, alphabet.letters))))
    active = alphabet.counting(tokens)[:, alphabet.coordinate]
    tokens, rows = np.unique(tokens * active, axis=0, return_index=True)
    return tokens, active[rows]


def probabilities(policy):
    """(m, T) every string, and (m,) its probability, by way of a point that it spells."""
    alphabet = policy.alphabet
    tokens, active = strings(alphabet)
    prior = alphabet.log_prior[np.arange(alphabet.n_tokens), tokens]
    log_prior = np.where(active, prior, 0.0).sum(axis=1)
    return tokens, np.exp(policy.log_prob(alphabet.decode(tokens, rng())) + log_prior)


class At:
    """A generator whose every number is this one."""

    def __init__(self, number):
        self.number = number

    def random(self, shape):
        return np.full(shape, self.number)


class TestSpelling:
    @all_cubes
    @pytest.mark.parametrize(("base", "digits"), [(8, 3), (10, 4), (7, 14), (3, 1)])
    def test_what_is_decoded_is_encoded_again(self, cube, base, digits):
        alphabet = Alphabet(cube, base=base, digits=digits)
        tokens = random_tokens(alphabet, 400)
        for numbers in (rng(1), At(0.0), At(1 - 2.0**-53)):
            unit = alphabet.decode(tokens, numbers)
            active = alphabet.active(unit)
            assert ((unit > 0) & (unit < 1)).all()
            np.testing.assert_array_equal(alphabet.encode(unit)[active], tokens[active])
            np.testing.assert_array_equal(cube.canonical(unit), unit)

    @all_cubes
    def test_first_and_last_letters_stay_in_the_open_cube(self, cube):
        alphabet = Alphabet(cube, base=7, digits=3)
        for tokens in (np.zeros((1, alphabet.n_tokens), int), alphabet.letters[None] - 1):
            for number in (0.0, 1 - 2.0**-53):
                unit = alphabet.decode(tokens, At(number))
                assert ((unit > 0) & (unit < 1)).all()
                active = alphabet.active(unit)
                np.testing.assert_array_equal(alphabet.encode(unit)[active], tokens[active])

    @all_cubes
    def test_a_point_is_decoded_into_its_finest_cell(self, cube):
        alphabet = Alphabet(cube, base=5, digits=3)
        unit = cube.canonical(rng(2).random((300, cube.ndim)))
        back = alphabet.decode(alphabet.encode(unit), rng(3))
        np.testing.assert_array_equal(cube.active(back), cube.active(unit))
        spelled = np.isin(np.arange(cube.ndim), alphabet.coordinate[cube.ndim :])
        assert (np.abs(back - unit)[:, spelled] < 1 / 125).all()
        cells = np.where(cube.active(unit), cube.cells(unit), 0)[:, ~spelled]
        again = np.where(cube.active(back), cube.cells(back), 0)[:, ~spelled]
        np.testing.assert_array_equal(cells, again)

    def test_the_most_significant_digits_come_first(self):
        alphabet = Alphabet(real_cube(2), base=10, digits=3)
        assert alphabet.encode(np.array([[0.1235, 0.9871]])).tolist() == [[1, 9, 2, 8, 3, 7]]
        assert alphabet.place_value.tolist() == [100, 100, 10, 10, 1, 1]

    def test_which_coordinates_are_one_token(self):
        """Choices, parents however many levels they have, and few levels; not 505 levels."""
        edges = [None if n == 0 else np.linspace(0, 1, n + 1) for n in (0, 16, 17, 40, 30, 0)]
        kinds = ("real", "ordinal", "ordinal", "categorical", "ordinal", "real")
        parents = ((), (), (), (), (), ((4, (7,)),))
        alphabet = Alphabet(Cube(kinds, (0, 16, 17, 40, 30, 0), tuple(edges), parents))
        assert alphabet.coordinate.tolist() == [0, 1, 2, 3, 4, 5, 0, 2, 5, 0, 2, 5]
        assert alphabet.letters.tolist() == [8, 16, 8, 40, 30, 8, 8, 8, 8, 8, 8, 8]
        assert alphabet.log_prior.shape == (12, 40)

    def test_cells_begin_at_their_lower_edge_whatever_is_rounded(self):
        k = np.arange(1, 1000)
        np.testing.assert_array_equal(cell_of(k / 1000, 1000), k)
        np.testing.assert_array_equal(cell_of(np.nextafter(k / 1000, 0), 1000), k - 1)
        assert cell_of(np.array([0.0, 1.0]), 1000).tolist() == [0, 999]

    @all_cubes
    def test_the_prior_is_the_product_of_the_letters_widths(self, cube):
        alphabet = Alphabet(cube, base=4, digits=2)
        exists = np.arange(alphabet.log_prior.shape[1]) < alphabet.letters[:, None]
        np.testing.assert_array_equal(np.isfinite(alphabet.log_prior), exists)
        for t, j in enumerate(alphabet.coordinate):
            single = (alphabet.coordinate == j).sum() == 1 and cube.edges[j] is not None
            widths = np.diff(cube.edges[j]) if single else np.full(4, 0.25)
            np.testing.assert_allclose(np.exp(alphabet.log_prior[t][exists[t]]), widths)

    @all_cubes
    def test_whether_a_token_counts_follows_from_those_before(self, cube):
        alphabet = Alphabet(cube)
        tokens, others = random_tokens(alphabet, 300), random_tokens(alphabet, 300, seed=9)
        counts = alphabet.counting(tokens)
        np.testing.assert_array_equal(counts, cube.active(alphabet.decode(tokens, rng())))
        for j in range(cube.ndim):
            before = np.arange(alphabet.n_tokens) < j
            mixed_up = alphabet.counting(np.where(before, tokens, others))
            np.testing.assert_array_equal(mixed_up[:, j], counts[:, j])

    def test_points_are_uniform_in_their_finest_cell(self):
        alphabet = Alphabet(long_ordinal_cube(), base=2, digits=2)
        tokens = np.tile([1, 2, 0, 1, 1], (20_000, 1))  # cells 3, 2 and 1
        assert alphabet.coordinate.tolist() == [0, 1, 2, 0, 2]
        low, width = np.array([0.75, 0.75, 0.25]), 0.25
        part = (alphabet.decode(tokens, rng()) - low) / width
        assert ((part >= 0) & (part < 1)).all()
        for j in range(3):
            within(part[:, j] - 1 / 2, "place in the cell")
            within(part[:, j] ** 2 - 1 / 3, "its square")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"base": 1}, "base: wanted a whole number >= 2, got 1"),
            ({"base": 2.5}, "base: wanted a whole number >= 2, got 2.5"),
            ({"digits": 0}, "digits: wanted a whole number >= 1, got 0"),
            ({"digits": "3"}, "digits: wanted a whole number >= 1, got '3'"),
            ({"digits": 14}, r"digits: wanted base\*\*digits <= 2\*\*40, got 8\*\*14"),
            ({"hidden": 0}, "hidden: wanted a whole number >= 1, got 0"),
            ({"hidden": True}, "hidden: wanted a whole number >= 1, got True"),
            ({"seed": -1}, "seed: wanted a whole number >= 0, got -1"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, words):
        with pytest.raises(ValueError, match=f"^{words}$"):
            TokenPolicy(real_cube(2), **arguments)

    def test_nothing_can_depend_on_a_real_coordinate(self):
        cube = Cube(("real",) * 2, (0, 0), (None, None), ((), ((0, (1,)),)))
        with pytest.raises(ValueError, match=r"^cube: wanted discrete parents.*coordinate 0$"):
            Alphabet(cube)


class TestDensity:
    @small_cubes
    @pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
    def test_strings_sum_to_one(self, cube, scale):
        tokens, probability = probabilities(small(cube, scale))
        assert len(tokens) in (2 * (1 + 4 + 4 + 1) + 4, 4 * (4 + 1 + 4))
        assert probability.sum() == pytest.approx(1, abs=1e-12)

    @small_cubes
    @pytest.mark.parametrize(
        ("scale", "at_a_time"), [(0, 30_000), (1.5, 30_000), (4, 30_000), (1.5, 1)]
    )
    def test_the_draws_agree_with_the_density(self, cube, scale, at_a_time):
        """Binned chi-square: a bin for each string."""
        policy, n, numbers = small(cube, scale), 30_000 if at_a_time > 1 else 4000, rng(4)
        tokens, probability = probabilities(policy)
        pieces = [policy.sample(at_a_time, None, numbers) for _ in range(n // at_a_time)]
        unit = np.concatenate(pieces)
        drawn = policy.alphabet.encode(unit) * policy.alphabet.active(unit)
        which = {tuple(string): i for i, string in enumerate(tokens.tolist())}
        counts = np.bincount([which[tuple(row)] for row in drawn.tolist()], minlength=len(which))
        rare = n * probability < 5
        observed = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(n * probability[~rare], n * probability[rare].sum() + 1e-9)
        freedom = len(observed) - 1
        assert freedom >= 10
        chi2 = ((observed - expected) ** 2 / expected).sum()
        assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)

    @all_cubes
    def test_weights_undo_the_policy(self, cube):
        """E_q[1/q] = 1, and the weighted draws are uniform on the cube."""
        policy = trained(cube, scale=0.3, hidden=16)
        unit = policy.sample(6000, None, rng(5))
        log_prob = policy.log_prob(unit)
        assert log_prob.std() > 0.2
        # Cells with a few draws each have no standard error: an eighth of the cube instead.
        edges = tuple(None if n > 20 else e for n, e in zip(cube.levels, cube.edges, strict=True))
        weights_law(np.exp(-log_prob), unit, replace(cube, edges=edges))

    @all_cubes
    @pytest.mark.parametrize("base", [8, 10])
    def test_untrained_it_is_the_prior_exactly(self, cube, base):
        policy = TokenPolicy(cube, base=base)
        unit = policy.sample(100, None, rng())
        assert (policy.steps(unit) == 0).all()
        assert (policy.widened().log_prob(unit) == 0).all()

    @all_cubes
    def test_the_density_is_what_the_formulas_say(self, cube):
        """Point by point, token by token, in the order of the paper."""
        policy = trained(cube, hidden=5).widened()
        w, alphabet = policy.weights, policy.alphabet
        unit = policy.sample(20, None, rng(6))
        letters, active = alphabet.encode(unit), alphabet.active(unit)
        expected = np.zeros(letters.shape)
        for i in range(len(unit)):
            a = w["c"].copy()
            for t in np.flatnonzero(active[i]):
                h = np.tanh(a)
                g = h + np.tanh(h @ w["U"] + w["d"])
                logits = 0.5 * (g @ w["V"][t] + w["b"][t])
                prior = np.exp(alphabet.log_prior[t])
                x = letters[i, t]
                expected[i, t] = logits[x] - np.log(prior @ np.exp(logits))
                a += w["E"][t, x]
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(policy.steps(unit), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(policy.log_prob(unit), expected.sum(axis=1), atol=1e-12)

    def test_masked_letters_change_nothing(self):
        cube = conditional_cube()
        policy = trained(cube, scale=3.0)
        unit = policy.sample(200, None, rng(7))
        other = np.where(cube.active(unit), unit, rng(8).random(unit.shape))
        assert (other != unit).any()
        assert (policy.alphabet.encode(other) != policy.alphabet.encode(unit)).any()
        np.testing.assert_array_equal(policy.steps(other), policy.steps(unit))
        assert (policy.steps(unit)[~policy.alphabet.active(unit)] == 0).all()

    def test_inactive_coordinates_lie_at_the_centre(self):
        cube = mixed.space().cube
        unit = trained(cube).sample(300, None, rng())
        inactive = ~cube.active(unit)
        assert inactive.any(axis=0).tolist() == [False, False, True, True] + [False] * 4
        assert (unit[inactive] == 0.5).all()

    def test_rows_do_not_touch_each_other(self):
        policy = trained(mixed.space().cube)
        unit = policy.sample(150, None, rng())
        one_by_one = np.concatenate([policy.steps(unit[i : i + 1]) for i in range(150)])
        np.testing.assert_allclose(policy.steps(unit), one_by_one, rtol=0, atol=1e-12)

    def test_it_can_be_as_sharp_as_it_likes(self):
        policy = trained(mixed.space().cube, scale=3000.0)
        unit = np.concatenate([policy.sample(20, None, rng()), rng().random((20, 8))])
        steps = policy.steps(unit)
        assert np.isfinite(steps).all()
        assert steps.min() < -1000

    def test_no_points(self):
        policy = trained(mixed.space().cube)
        unit = policy.sample(0, None, rng())
        assert unit.shape == (0, 8)
        assert policy.steps(unit).shape == (0, policy.n_steps)
        assert policy.log_prob(unit).shape == (0,)

    def test_letters_without_probability_are_never_drawn(self):
        logits = np.log(np.array([[1e-300, 1.0, 1e-300, 3.0, 1e-300]])) * [2, 1, 2, 1, 2]
        logits[0, -1] = -np.inf
        u = np.array([0.0, 0.249, 0.251, 1 - 2.0**-53])
        assert inverse(np.tile(logits, (4, 1)), u).tolist() == [1, 1, 3, 3]


class TestWidened:
    @small_cubes
    def test_it_is_normalised_and_wider(self, cube):
        policy = small(cube, 2.0)
        entropies = []
        for one in (policy, policy.widened(), policy.widened().widened(), small(cube, 0.0)):
            tokens, probability = probabilities(one)
            assert probability.sum() == pytest.approx(1, abs=1e-12)
            log_q = one.log_prob(one.alphabet.decode(tokens, rng()))
            entropies.append(-(probability * log_q).sum())
        assert entropies == sorted(entropies)
        assert entropies[0] < entropies[1] - 0.1

    def test_one_token_goes_halfway_to_the_prior(self):
        policy = trained(Cube(("categorical",), (4,), (FOUR,)), scale=2.0)
        unit = (FOUR[:-1, None] + FOUR[1:, None]) / 2
        prior, half = np.diff(FOUR), policy.log_prob(unit) / 2
        expected = half - np.log(prior @ np.exp(half))
        np.testing.assert_allclose(policy.widened().log_prob(unit), expected, atol=1e-12)

    def test_no_learner_touches_the_heat(self):
        policy = TokenPolicy(real_cube(1))
        assert policy.weights.keys() - set(policy.trainable) == {"heat"}
        assert set(policy.trainable) <= policy.weights.keys()
        assert policy.widened().weights["heat"] == policy.weights["heat"] / 2


class TestTorch:
    @all_cubes
    def test_numpy_and_torch_agree(self, cube):
        torch = pytest.importorskip("torch")
        policy = trained(cube, scale=2.0).widened()
        unit = policy.sample(40, None, rng(9))
        weights = {k: torch.tensor(v) for k, v in policy.weights.items()}
        steps, hidden, active = policy.torch_steps(weights, unit)
        np.testing.assert_allclose(steps.numpy(), policy.steps(unit), rtol=0, atol=1e-10)
        assert hidden.shape == (40, policy.n_steps, 64)
        np.testing.assert_array_equal(active.numpy(), policy.alphabet.active(unit))
        some, _, _ = policy.torch_steps({"b": weights["b"]}, unit)
        assert torch.equal(some, steps)

    def test_hidden_is_what_the_logits_are_read_from(self):
        torch = pytest.importorskip("torch")
        policy = trained(conditional_cube(), hidden=7)
        unit, w = policy.sample(30, None, rng()), policy.weights
        _, hidden, active = policy.torch_steps({"b": torch.tensor(w["b"])}, unit)
        part = np.einsum("nth,thk->ntk", hidden.numpy(), w["V"]) + w["b"]
        letters = policy.alphabet.encode(unit)
        log_z = np.log((np.exp(policy.alphabet.log_prior + part)).sum(axis=-1))
        steps = np.take_along_axis(part, letters[..., None], -1)[..., 0] - log_z
        expected = np.where(active.numpy(), steps, 0.0)
        np.testing.assert_allclose(policy.steps(unit), expected, atol=1e-12)

    @pytest.mark.parametrize("name", ["c", "E", "U", "d", "V", "b"])
    def test_gradients_are_those_of_the_numpy_density(self, name):
        torch = pytest.importorskip("torch")
        policy = trained(mixed.space().cube, hidden=8)
        unit = policy.sample(30, None, rng(10))
        factor = rng(11).normal(size=30)
        weights = {name: torch.tensor(policy.weights[name], requires_grad=True)}
        steps, _, _ = policy.torch_steps(weights, unit)
        (steps.sum(1) * torch.tensor(factor)).sum().backward()
        gradient = weights[name].grad.numpy()
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0.01
        way, width = rng(12).normal(size=gradient.shape), 1e-5

        def loss(step):
            moved = {**policy.weights, name: policy.weights[name] + step * way}
            return policy.with_weights(moved).log_prob(unit) @ factor

        slope = (loss(width) - loss(-width)) / (2 * width)
        assert (gradient * way).sum() == pytest.approx(slope, rel=1e-6)

    def test_drawing_needs_no_torch(self):
        code = (
            "import sys, numpy as np\n"
            "from ensemblerl.agents.policies.tokens import TokenPolicy\n"
            "from ensemblerl.testing.cubes import mixed_cube\n"
            "policy = TokenPolicy(mixed_cube())\n"
            "policy.steps(policy.sample(3, None, np.random.default_rng(0)))\n"
            "print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "False", done.stderr


class TestParts:
    def test_it_is_a_policy(self):
        policy = TokenPolicy(mixed.space().cube)
        assert isinstance(policy, Policy)
        assert policy.n_steps == 18
        assert repr(policy) == "TokenPolicy(ndim=8, n_steps=18)"

    def test_it_is_built_again_from_its_description(self):
        cube = mixed.space().cube
        policy = TokenPolicy(cube, base=4, digits=2, hidden=3, seed=7)
        words = json.loads(json.dumps(policy.describe()))
        assert words.pop("policy") == "TokenPolicy"
        again = TokenPolicy(cube, **words)
        assert again.describe() == policy.describe()
        for name, array in policy.weights.items():
            np.testing.assert_array_equal(again.weights[name], array)
        other = TokenPolicy(cube, **{**words, "seed": 8})
        assert not np.array_equal(other.weights["E"], policy.weights["E"])

    def test_it_is_a_function_of_its_weights_and_the_generator(self):
        policy = trained(mixed.space().cube, seed=1)
        again = TokenPolicy(mixed.space().cube).with_weights(policy.weights)
        unit = policy.sample(50, None, rng(3))
        np.testing.assert_array_equal(again.sample(50, None, rng(3)), unit)
        np.testing.assert_array_equal(again.steps(unit), policy.steps(unit))
        assert not (policy.sample(50, None, rng(4)) == unit).all(axis=1).any()

    def test_it_never_changes(self):
        policy = TokenPolicy(real_cube(2))
        weights = policy.weights
        with pytest.raises(ValueError, match="read-only"):
            weights["V"][0] = 1.0
        own = {name: array.copy() for name, array in weights.items()}
        other = policy.with_weights(own)
        own["b"][:] = rng().normal(size=own["b"].shape)
        unit = rng().random((5, 2))
        assert (other.log_prob(unit) == 0).all()
        assert (policy.with_weights(own).log_prob(unit) != 0).all()
        weights.pop("V")
        assert (policy.log_prob(unit) == 0).all()

    def test_wrong_weights_are_named(self):
        policy = TokenPolicy(real_cube(2))
        with pytest.raises(ValueError, match=r"^weights: wanted \['E', .*, got \['V'\]$"):
            policy.with_weights({"V": policy.weights["V"]})
        wrong = {**policy.weights, "b": np.zeros((2, 8))}
        with pytest.raises(ValueError, match=r"^weights\['b'\]: wanted the shape \(6, 8\), got"):
            policy.with_weights(wrong)

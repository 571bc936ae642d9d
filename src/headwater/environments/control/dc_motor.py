r"""A direct-current motor whose current follows a reference, and the controller of textbooks.

The motor is the permanently excited one of gym-electric-motor (Balakrishna et al. 2021; Traue et
al. 2022): $L\,di/dt = u - R\,i - \psi\,\omega$ and $J\,d\omega/dt = \psi\,i - b\,\omega$, with a
voltage $u$ that is held for one period of the converter. Both equations are linear, so that a step
is exact: it is the exponential of their matrix.
"""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, AbstractExpert, Step

Number = float | Float[Array, ""]

_FASTEST_START = 0.5
"""Largest speed at which an episode begins, in shares of the limit."""
_POSITIVE = (
    "resistance",
    "inductance",
    "flux",
    "inertia",
    "supply",
    "period",
    "current_limit",
    "speed_limit",
    "expert_gain",
    "expert_integral_time",
)
_DOUBLINGS, _TERMS = 6, 6
"""Of the exponential: accurate to rounding where a rate times the period is below ten."""


class DCMotorState(eqx.Module):
    """Where the drive is, in shares of its limits.

    **Arguments:** `current`, `speed`: of the motor; `reference`: of the current; `command`: the
    last action; `error`: reference less current before it; `time`: steps taken.
    """

    current: Float[Array, ""]
    speed: Float[Array, ""]
    reference: Float[Array, ""]
    command: Float[Array, ""]
    error: Float[Array, ""]
    time: Int[Array, ""]


class PIController(eqx.Module):
    r"""Proportional-integral control: $u = K_p (e + \frac{1}{T_i} \int e)$, in steps.

    It adds to the command before, $u_k = u_{k-1} + K_p(e_k - e_{k-1}) + K_i e_k$, and the sum is
    clipped: so its integral cannot wind up while the voltage is at its end, and it takes over from
    whatever acted before without a jump.

    **Arguments:** `proportional`: $K_p$, canonical command per error in shares of the limit;
    `integral`: $K_i = K_p T / T_i$ with the period $T$, in the same unit.
    """

    proportional: Number
    integral: Number

    def __call__(
        self,
        command: Float[Array, "*batch"],
        before: Float[Array, "*batch"],
        error: Float[Array, "*batch"],
    ) -> Float[Array, "*batch"]:
        """The next command, in [-1, 1].

        **Arguments:** `command`: the last one; `before`: the error that it answered (0 at first);
        `error`: the present one.
        """
        more = self.proportional * (error - before) + self.integral * error
        return jnp.clip(command + more, -1.0, 1.0)


class DCMotor(AbstractEnvironment, AbstractExpert):
    r"""Set the voltage of a motor so that its current is what a wandering reference asks for.

    Observation: current and speed in shares of their limits, the reference in shares of the
    current's, and the last action. Action: the voltage, from minus to plus the supply's; with dead
    time it is applied one period later. Reward: minus half the distance of the current reached from
    the reference shown before, in shares of the limit. A step that takes current or speed past its
    limit is terminal and costs `penalty` instead. Episodes begin without current, at a speed
    of up to half of its limit in both directions, with the voltage that the motor itself induces.
    The reference begins anywhere in its range; in each step it moves by a normal number and stays
    within the range, or jumps to anywhere in it. The expert is a PI controller (`controller`).

    Undiscounted returns flatter those who end early: an episode of random actions returns about -11
    and one of the expert -9. Compare how far currents are from their references, or raise `penalty`
    where returns are looked at. With a discount γ it has to be about .75/(1-γ) or more, what
    tracking costs for ever at worst: at less, actors learned to end episodes at once.

    **Arguments:**

    - `resistance`, `inductance`: of the armature, R in ohms and L in henries.
    - `flux`: ψ, volts per radian per second, which are newton metres per ampere.
    - `inertia`: J of rotor and load, in kg m².
    - `friction`: b, in N m per radian per second.
    - `supply`: the largest voltage, in volts.
    - `period`: T, how long a voltage is held, in seconds.
    - `current_limit`, `speed_limit`: in amperes, and radians per second.
    - `reach`: of the reference, in shares of the limit.
    - `wander`: standard deviation of what it moves by in a step, in shares of the limit.
    - `jumps`: how probably it jumps.
    - `penalty`: what passing a limit costs; as the package has it, the worst reward for ever at a
      discount of 0.9.
    - `expert_gain`, `expert_integral_time`: of the expert, in multiples of the textbook's.
    - `dead_time`: how many periods late voltages come, 0 or 1.
    - `horizon`: steps of an episode.

    Raises `SpecificationError` for parameters that no motor has, a reference that reaches the limit
    or a supply that cannot hold it.

    **Reference:** Traue et al. (2022), arXiv:1910.09434; Balakrishna et al. (2021).

    **Differences from the package:** `Cont-CC-PermExDc-v0`, whose parameters and rewards are the
    defaults, holds the speed constant and starts at one speed, without the voltage induced there;
    its reference wanders at a rate that is drawn for each of its sections, and it does not jump;
    torque and voltages are shown too, and the last action is not.
    """

    name: ClassVar[str] = "dc-motor"
    reference_returns: ClassVar[tuple[float, float] | None] = None

    resistance: Number = 16e-3
    inductance: Number = 19e-6
    flux: Number = 0.165
    inertia: Number = 0.025
    friction: Number = 0.01
    supply: float = eqx.field(static=True, default=60.0)
    period: Number = 1e-4
    current_limit: Number = 210.0
    speed_limit: Number = 400.0
    reach: Number = 0.46
    wander: Number = 0.03
    jumps: Number = 0.01
    penalty: Number = 10.0
    expert_gain: Number = 1.0
    expert_integral_time: Number = 1.0
    dead_time: int = eqx.field(static=True, default=1)
    horizon: int = eqx.field(static=True, default=500)

    def __check_init__(self):
        for name in (*_POSITIVE, "friction", "wander", "penalty"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not (
                math.isfinite(value) and (value > 0.0 or (value == 0.0 and name not in _POSITIVE))
            ):
                least = "positive" if name in _POSITIVE else "at least 0"
                raise SpecificationError(
                    f"{self.name}: {name} = {value} is beyond any motor: it must be finite and "
                    f"{least}"
                )
        if isinstance(self.reach, int | float) and not 0.0 < self.reach < 1.0:
            raise SpecificationError(
                f"{self.name}: reach = {self.reach} asks for currents beyond the limit, which end "
                "the episode: it must be above 0 and below 1"
            )
        if isinstance(self.jumps, int | float) and not 0.0 <= self.jumps <= 1.0:
            raise SpecificationError(
                f"{self.name}: jumps = {self.jumps} is no probability: it must be in [0, 1]"
            )
        if self.dead_time not in (0, 1):
            raise SpecificationError(
                f"{self.name}: dead_time = {self.dead_time} must be 0 or 1: voltages come at once "
                "or one period late"
            )
        if self.horizon < 1:
            raise SpecificationError(f"{self.name}: horizon = {self.horizon} must be at least 1")
        needed = (
            _FASTEST_START * self.flux * self.speed_limit
            + self.resistance * self.reach * self.current_limit
        )
        if isinstance(needed, int | float) and needed > self.supply:
            raise SpecificationError(
                f"{self.name}: supply = {self.supply:g} V cannot hold the largest reference at the "
                f"largest speed of a start, which takes {needed:.3g} V: raise it, or lower "
                "reach or speed_limit"
            )

    @property
    def spaces(self) -> Spaces:
        # The step that passes a limit shows by how much.
        low = (-np.inf, -np.inf, -1.0, -1.0)
        box = Box(low, tuple(-bound for bound in low))
        supply = float(self.supply)
        return Spaces(box, Box((-supply,), (supply,)), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        speed_key, reference_key = jax.random.split(key)
        start = _FASTEST_START
        speed = jax.random.uniform(speed_key, minval=-start, maxval=start)
        nothing = jnp.zeros(())
        state = DCMotorState(
            current=nothing,
            speed=speed,
            reference=self._anywhere(reference_key),
            command=self.flux * self.speed_limit * speed / self.supply,
            error=nothing,
            time=jnp.zeros((), jnp.int32),
        )
        return state, _observe(state)

    def step(self, state: DCMotorState, action: Array, *, key: PRNGKeyArray):
        command = jnp.clip(action[0], -1.0, 1.0)
        voltage = self.supply * (state.command if self.dead_time else command)
        onward, held = self.transition()
        limits = jnp.stack([jnp.asarray(self.current_limit), jnp.asarray(self.speed_limit)])
        motion = limits * jnp.stack([state.current, state.speed])
        current, speed = (onward @ motion + held * voltage) / limits
        reached = DCMotorState(
            current=current,
            speed=speed,
            reference=self._following(state.reference, key),
            command=command,
            error=state.reference - state.current,
            time=state.time + 1,
        )
        beyond = (jnp.abs(current) > 1.0) | (jnp.abs(speed) > 1.0)
        reward = jnp.where(beyond, -self.penalty, -0.5 * jnp.abs(current - state.reference))
        truncated = (reached.time >= self.horizon) & ~beyond
        return reached, Step(_observe(reached), reward, beyond, truncated)

    def expert_action(self, state: DCMotorState, *, key: PRNGKeyArray):
        error = state.reference - state.current
        return self.controller()(state.command, state.error, error)[None]

    def controller(self) -> PIController:
        r"""The PI controller by the magnitude optimum, of the motor at a constant speed.

        $T_i = L/R$ cancels the pole of the armature and $K_p = L / (2 T_\sigma)$ damps what is
        left, a dead time and half a period of holding: $T_\sigma = 1.5\,T$, or $0.5\,T$ without
        dead time; both times what the fields of the expert say.
        """
        late = (1.5 if self.dead_time else 0.5) * self.period
        volts_per_ampere = self.expert_gain * self.inductance / (2.0 * late)
        proportional = volts_per_ampere * self.current_limit / self.supply
        time = self.expert_integral_time * self.inductance / self.resistance
        return PIController(proportional, proportional * self.period / time)

    def transition(self) -> tuple[Float[Array, "2 2"], Float[Array, " 2"]]:
        """What current and speed become in one period: what they, and a volt, are multiplied by.

        In amperes and radians per second.
        """
        nothing = jnp.zeros(())
        rows = [
            [-self.resistance / self.inductance, -self.flux / self.inductance, 1 / self.inductance],
            [self.flux / self.inertia, -self.friction / self.inertia, nothing],
            [nothing, nothing, nothing],
        ]
        rates = jnp.stack([jnp.stack([jnp.asarray(x, jnp.float32) for x in row]) for row in rows])
        change = _growth(self.period * rates)
        return jnp.eye(2) + change[:2, :2], change[:2, 2]

    def _anywhere(self, key: PRNGKeyArray) -> Float[Array, ""]:
        return self.reach * jax.random.uniform(key, minval=-1.0, maxval=1.0)

    def _following(self, reference: Float[Array, ""], key: PRNGKeyArray) -> Float[Array, ""]:
        move_key, coin_key, place_key = jax.random.split(key, 3)
        moved = reference + self.wander * jax.random.normal(move_key)
        jumped = jax.random.uniform(coin_key) < self.jumps
        return jnp.where(
            jumped, self._anywhere(place_key), jnp.clip(moved, -self.reach, self.reach)
        )


def _observe(state: DCMotorState) -> Float[Array, " observation"]:
    return jnp.stack([state.current, state.speed, state.reference, state.command])


def _growth(matrix: Float[Array, "row row"]) -> Float[Array, "row row"]:
    """The exponential of a matrix, less one.

    It is kept less one while it is doubled, so that small entries are not lost beside the ones.
    """
    small = matrix / 2**_DOUBLINGS
    term = total = small
    for i in range(2, _TERMS + 1):
        term = term @ small / i
        total = total + term
    for _ in range(_DOUBLINGS):
        total = 2.0 * total + total @ total
    return total

"""The commands on hierarchies, the lockout and physical presence.

Models: switching hierarchies, their authorisation values and policies, new seeds, Clear, the settings against
guessing, and the list of commands that need somebody at the machine.
Leaves out: what SetAlgorithmSet would switch off (the value is kept and reported).
Sources: TPM 2.0 Library part 3, chapters 24 to 26; part 1, chapter 13; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPMA_NV
from sim.tpm.nv import forget_counter
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.tables import COMMANDS

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "start_authorizations"]

_SEED_BYTES = 64
_OWNER, _ENDORSEMENT = TPM_RH.OWNER.value, TPM_RH.ENDORSEMENT.value
_PLATFORM, _LOCKOUT = TPM_RH.PLATFORM.value, TPM_RH.LOCKOUT.value
_NO_POLICY = {"policy": b"", "policy_alg": TPM_ALG.NULL.value}


def start_authorizations(tpm: Tpm, *, resume: bool, restart: bool, orderly: bool) -> None:
    """Apply Startup: hierarchies are on, the platform's secrets are empty, sessions of an earlier reset are gone."""
    tpm.da.start(orderly=orderly)
    if not resume:
        if not restart:
            tpm.sessions.reset()
            tpm.command_audit.begin_anew()
        for handle in (_OWNER, _ENDORSEMENT, _PLATFORM):
            _change(tpm, handle, enabled=True)
        _change(tpm, _PLATFORM, auth=b"", **_NO_POLICY)
        tpm.platform_nv_enabled = True


def _change(tpm: Tpm, handle: int, **changes: Any) -> None:
    tpm.hierarchies[handle] = attrs.evolve(tpm.hierarchies[handle], **changes)


def hierarchy_control(tpm: Tpm, authority: int, switched: int, state: int) -> tuple[Any, ...]:
    """Switch a hierarchy on or off; the owner's and the endorsement hierarchy may also be switched off by themselves.

    Their own authorisation cannot switch them on: a hierarchy that is off authorises nothing.
    """
    own = switched == authority and switched in (_OWNER, _ENDORSEMENT)
    if authority != _PLATFORM and not own:
        raise RefusedError(TPM_RC.AUTH_TYPE)
    if switched == TPM_RH.PLATFORM_NV:
        tpm.platform_nv_enabled = bool(state)
    elif tpm.hierarchies[switched].enabled != bool(state):
        if not state:
            _flush(tpm, switched, persistent=False)
        _change(tpm, switched, enabled=bool(state))
    return ()


def _flush(tpm: Tpm, hierarchy: int, *, persistent: bool) -> None:
    """Remove the objects of a hierarchy."""
    stores = (tpm.objects, tpm.persistent) if persistent else (tpm.objects,)
    for store in stores:
        for handle in [each for each, loaded in store.items() if loaded.hierarchy == hierarchy]:
            del store[handle]


def set_primary_policy(tpm: Tpm, handle: int, policy: bytes, policy_alg: int) -> tuple[Any, ...]:
    """Set the policy of a hierarchy or of the lockout; without algorithm there is none."""
    if len(policy) != HASH_BYTES.get(policy_alg, 0):
        raise in_parameter(TPM_RC.SIZE, 1)
    _change(tpm, handle, policy=policy, policy_alg=policy_alg)
    return ()


def hierarchy_change_auth(tpm: Tpm, handle: int, auth: bytes) -> tuple[Any, ...]:
    """Set the authorisation value of a hierarchy or of the lockout."""
    _change(tpm, handle, auth=auth.rstrip(b"\0"))
    return ()


def change_pps(tpm: Tpm, platform: int) -> tuple[Any, ...]:
    """Give the platform hierarchy a new seed, which ends all of its keys."""
    seed, proof = tpm.random.bytes(_SEED_BYTES), tpm.random.bytes(_SEED_BYTES)
    _change(tpm, _PLATFORM, seed=seed, proof=proof, **_NO_POLICY)
    _flush(tpm, _PLATFORM, persistent=True)
    return ()


def change_eps(tpm: Tpm, platform: int) -> tuple[Any, ...]:
    """Give the endorsement hierarchy a new seed: from then on it is another TPM."""
    seed, proof = tpm.random.bytes(_SEED_BYTES), tpm.random.bytes(_SEED_BYTES)
    _change(tpm, _ENDORSEMENT, seed=seed, proof=proof, auth=b"", **_NO_POLICY)
    _flush(tpm, _ENDORSEMENT, persistent=True)
    return ()


def clear(tpm: Tpm, authority: int) -> tuple[Any, ...]:
    """Remove everything of the owner, and with it what anybody did under owner and endorsement."""
    if tpm.clear_disabled:
        raise RefusedError(TPM_RC.DISABLED)
    for hierarchy in (_OWNER, _ENDORSEMENT):
        _flush(tpm, hierarchy, persistent=True)
    owned = [
        handle for handle, index in tpm.nv.items() if not index.public.attributes & TPMA_NV.PLATFORMCREATE
    ]
    for handle in owned:
        tpm.nv_counter_max = forget_counter(tpm.nv[handle], tpm.nv_counter_max)
        del tpm.nv[handle]
    fresh = {"auth": b"", "enabled": True, **_NO_POLICY}
    seed, proof = tpm.random.bytes(_SEED_BYTES), tpm.random.bytes(_SEED_BYTES)
    _change(tpm, _OWNER, seed=seed, proof=proof, **fresh)
    _change(tpm, _ENDORSEMENT, proof=tpm.random.bytes(_SEED_BYTES), **fresh)
    _change(tpm, _LOCKOUT, **fresh)
    tpm.da.reset()
    tpm.pcrs.update_counter += 1
    tpm.command_audit.counter = 0
    tpm.time.clear(tpm.clock.now)
    return ()


def clear_control(tpm: Tpm, authority: int, disable: int) -> tuple[Any, ...]:
    """Forbid Clear; only the platform may allow it again."""
    if not disable and authority != _PLATFORM:
        raise RefusedError(TPM_RC.AUTH_FAIL)
    tpm.clear_disabled = bool(disable)
    return ()


def dictionary_attack_lock_reset(tpm: Tpm, lockout: int) -> tuple[Any, ...]:
    """Forget failed authorisations."""
    tpm.da.failed_tries = 0
    return ()


def dictionary_attack_parameters(
    tpm: Tpm, lockout: int, max_tries: int, recovery_s: int, lockout_recovery_s: int
) -> tuple[Any, ...]:
    """Set how many failures lock, how fast they heal, and how long a failed lockout authorisation locks itself."""
    tpm.da.max_tries = max_tries
    tpm.da.recovery_s = recovery_s
    tpm.da.lockout_recovery_s = lockout_recovery_s
    return ()


def pp_commands(
    tpm: Tpm, platform: int, set_list: tuple[int, ...], clear_list: tuple[int, ...]
) -> tuple[Any, ...]:
    """Choose which commands of the platform need somebody present; this one always does."""
    platforms = {
        code
        for code, spec in COMMANDS.items()
        if spec.handles and spec.handles[0].authorised and _PLATFORM in spec.handles[0].allowed
    }
    chosen = (set(tpm.presence_commands) | (set(set_list) & platforms)) - set(clear_list)
    tpm.presence_commands = tuple(sorted(chosen | {TPM_CC.PP_Commands.value}))
    return ()


def set_algorithm_set(tpm: Tpm, platform: int, algorithm_set: int) -> tuple[Any, ...]:
    """Keep the number of an algorithm set."""
    tpm.algorithm_set = algorithm_set
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.ChangeEPS.value: change_eps,
    TPM_CC.ChangePPS.value: change_pps,
    TPM_CC.Clear.value: clear,
    TPM_CC.ClearControl.value: clear_control,
    TPM_CC.DictionaryAttackLockReset.value: dictionary_attack_lock_reset,
    TPM_CC.DictionaryAttackParameters.value: dictionary_attack_parameters,
    TPM_CC.HierarchyChangeAuth.value: hierarchy_change_auth,
    TPM_CC.HierarchyControl.value: hierarchy_control,
    TPM_CC.PP_Commands.value: pp_commands,
    TPM_CC.SetAlgorithmSet.value: set_algorithm_set,
    TPM_CC.SetPrimaryPolicy.value: set_primary_policy,
}
"""The actions of this group, by command code."""

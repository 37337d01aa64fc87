"""Checks of save_weights and load_weights."""

from __future__ import annotations

import io

import numpy as np

from optix_protocol.conformance._files import is_pickle
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, first_mismatch, require, skip


@check("weights")
def check_save_writes_exact_path(subject: Subject) -> None:
    """save_weights writes one file, at exactly the path it was given, and can overwrite it."""
    agent = subject.fresh()
    folder = subject.directory / "exact"
    folder.mkdir()
    path = folder / "policy.v1"
    for given in (path, str(path)):
        agent.save_weights(given)
        found = sorted(entry.name for entry in folder.iterdir())
        require(
            found == [path.name],
            f"save_weights({path.name!r}) left {found} in the folder: write one file with exactly this name "
            "(numpy.savez appends .npz to a name; give it an open file instead).",
        )
    require(path.stat().st_size > 0, "save_weights wrote an empty file.")


@check("weights")
def check_save_is_no_pickle(subject: Subject) -> None:
    """The weight file can be read without executing anything from it."""
    agent = subject.learned_from(subject.window())
    require(
        not is_pickle(subject.saved(agent)),
        "save_weights wrote a pickle (torch.save and joblib.dump do), which runs code when it is read: write "
        "safetensors, or numpy.savez with numeric arrays only.",
    )


@check("weights")
def check_save_keeps_agent(subject: Subject) -> None:
    """Saving changes nothing: two files in a row hold the same weights."""
    agent = subject.learned_from(subject.window())
    first = subject.weights(agent)
    name = first_mismatch(first, subject.weights(agent))
    require(name is None, f"{name} differs between two saves in a row: save_weights must not change the agent.")


@check("weights")
def check_load_restores(subject: Subject) -> None:
    """A fresh agent that loads the file acts as the agent did that wrote it."""
    writer = subject.learned_hard(subject.fresh())
    path = subject.directory / "written"
    writer.save_weights(path)
    reader = subject.fresh(12345)
    for given in (path, str(path)):
        reader.load_weights(given)
    name = first_mismatch(subject.behaviour(writer), subject.behaviour(reader))
    require(
        name is None,
        f"{name} differs after save_weights and load_weights into a fresh agent: the file must hold all that acting "
        "needs (normaliser statistics, the deviation of a Gaussian), and load_weights must use all of it.",
    )


@check("weights")
def check_load_refuses_damage(subject: Subject) -> None:
    """A damaged or foreign file is a ValueError, and the agent stays as it was."""
    agent = subject.learned_from(subject.window())
    good = subject.saved(agent)
    foreign = io.BytesIO()
    np.savez(foreign, something_else=np.arange(3.0))
    files = {
        "an empty file": b"",
        "a file cut in half": good[: len(good) // 2],
        "a file of noise": np.random.default_rng(0).bytes(256),
        "a file with other arrays": foreign.getvalue(),
    }
    before = subject.behaviour(agent)
    path = subject.directory / "damaged"
    for what, content in files.items():
        path.write_bytes(content)
        try:
            agent.load_weights(path)
        except ValueError:
            pass
        except Exception as error:
            require(
                False, f"load_weights raised {type(error).__name__} ({error}) for {what}: raise ValueError from it."
            )
        else:
            require(False, f"load_weights accepted {what}: compare names and shapes, and raise ValueError.")
        name = first_mismatch(before, subject.behaviour(agent))
        require(name is None, f"load_weights refused {what}, but changed {name}: check everything, then assign.")


@check("weights")
def check_load_refuses_other_network(subject: Subject) -> None:
    """Weights of a network for other spaces are a ValueError."""
    if subject.make_other is None:
        skip("no make_other was given: pass a factory of an agent for other spaces to check this")
    path = subject.directory / "other"
    subject.make_other().save_weights(path)
    agent = subject.fresh()
    before = subject.behaviour(agent)
    try:
        agent.load_weights(path)
    except ValueError:
        pass
    else:
        require(False, "load_weights accepted weights of a network for other spaces: compare every shape first.")
    name = first_mismatch(before, subject.behaviour(agent))
    require(name is None, f"load_weights refused another network's file, but changed {name}: check, then assign.")

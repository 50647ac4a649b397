"""What can go wrong between this machine and the model hub, each in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tca.errors import TcaError

LOG_IN = "log in with `hf auth login`"


@contextmanager
def pulling(repo: str) -> Iterator[None]:
    """Explain what fails inside, where the model `repo` is fetched."""
    try:
        yield
    except HFValidationError:
        problem = f"there is no folder {repo}, and it is no hub id; write OWNER/NAME or a folder"
    except GatedRepoError:
        problem = f"the model {repo} is gated: accept its terms on its page and {LOG_IN}"
    except RevisionNotFoundError:
        problem = f"the model {repo} has no such revision; look at its page for those it has"
    except RepositoryNotFoundError:
        problem = (
            f"there is no folder {repo}, and the hub has no model of that name, or it is private: "
            f"correct the name, or {LOG_IN}"
        )
    except Exception as error:
        problem = (
            f"there is no folder {repo}, and the hub does not answer ({_first_line(error)}); "
            "connect, or give the folder of a model that was downloaded elsewhere"
        )
    else:
        return
    raise TcaError(f"{problem}.")


@contextmanager
def pushing(repo: str) -> Iterator[None]:
    """Explain what fails inside, where a model is uploaded as `repo`."""
    try:
        yield
    except TcaError:
        raise
    except HFValidationError:
        problem = f"{repo} is no hub id; write OWNER/NAME"
    except LocalTokenNotFoundError:
        problem = f"the hub does not know you; {LOG_IN}"
    except HfHubHTTPError as error:
        problem = f"the hub refuses {repo} ({_first_line(error)}); {LOG_IN} as one who may write it"
    except Exception as error:
        problem = f"{repo} cannot be uploaded ({_first_line(error)}); connect and push again"
    else:
        return
    raise TcaError(f"{problem}.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__

"""The broker's jars: exactly those of `jgo.lock.toml`, each checked against its SHA-256."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import JarError

LOCK_FILE = Path(__file__).with_name("jgo.lock.toml")


@dataclass(frozen=True, slots=True)
class LockedJar:
    """One jar of the lock: its Maven coordinates and the SHA-256 of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    def path_in(self, repository: Path) -> Path:
        """Return where a Maven repository folder keeps this jar."""
        folder = repository.joinpath(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}.jar"


def read_lock(path: Path = LOCK_FILE) -> tuple[LockedJar, ...]:
    """Read the pinned jars, in class path order.

    Raises:
        JarError: The lock cannot be read, is empty, or has an entry without a SHA-256
            (an unchecked jar would be code of unknown origin with the user's rights).
    """
    remedy = "restore it from version control"
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["dependencies"]
        jars = tuple(
            LockedJar(e["groupId"], e["artifactId"], e["version"], e["sha256"]) for e in entries
        )
    except OSError as error:
        raise JarError(f"cannot read the lock of Kafka's jars: {error}; {remedy}") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise JarError(f"{path} is not a lock file ({error!r}); {remedy}") from error
    if not jars:
        raise JarError(f"{path} lists no jar; {remedy}")
    return jars


def verified_classpath(jars: Iterable[LockedJar], repository: Path) -> list[Path]:
    """Return the jars' paths in `repository` after checking the bytes of each.

    Raises:
        JarError: A jar is missing or differs from the lock; all of them are named.
    """
    paths, missing, altered = [], [], []
    for jar in jars:
        path = jar.path_in(repository)
        paths.append(path)
        if not path.is_file():
            missing.append(f"{jar} ({path})")
        elif _sha256(path) != jar.sha256:
            altered.append(f"{jar} ({path})")
    if altered:
        raise JarError(
            "these jars are not the ones that jgo.lock.toml describes (SHA-256 differs), so they "
            f"are not run: {', '.join(altered)}. Delete them and run `emergencias stack jars` to "
            "fetch them again; if they differ again, do not trust where they come from."
        )
    if missing:
        raise JarError(
            f"these jars are missing: {', '.join(missing)}. Run `emergencias stack jars` with "
            "network access."
        )
    return paths


def fetch(
    jars: Iterable[LockedJar],
    repository: Path | None = None,
    *,
    on_fetch: Callable[[LockedJar], None] | None = None,
) -> list[Path]:
    """Download the jars that are missing, check all of them and return the class path.

    jgo's own configuration applies (mirror repositories, cache folder); versions come from the
    lock alone, so nothing is resolved anew.

    Args:
        jars: What the lock lists.
        repository: The Maven repository folder; jgo's by default.
        on_fetch: Called before each download.

    Raises:
        JarError: A download failed, or a jar differs from the lock.
    """
    from jgo.maven import MavenContext

    wanted = tuple(jars)
    folder = repository or local_repository()
    context = MavenContext(repo_cache=folder, remote_repos=_remote_repositories(), timeout=60)
    for jar in wanted:
        if jar.path_in(folder).is_file():
            continue
        if on_fetch is not None:
            on_fetch(jar)
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        try:
            component.artifact().resolve()
        except BaseException as error:
            # A download that broke off (Ctrl-C included) leaves half a file under the jar's name.
            jar.path_in(folder).unlink(missing_ok=True)
            if not isinstance(error, (OSError, RuntimeError)):  # requests' errors are OSErrors
                raise
            raise JarError(
                f"cannot download {jar}: {error}. Check the network (or the mirror in jgo's "
                "configuration file) and run the same command again; what was fetched is kept."
            ) from error
    return verified_classpath(wanted, folder)


def local_repository() -> Path:
    """Return the folder in which jgo keeps jars (`M2_REPO`, jgo's configuration, or ~/.m2)."""
    from jgo.config import GlobalSettings

    return Path(GlobalSettings.load().repo_cache).expanduser()


def _remote_repositories() -> dict[str, str]:
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL

    return {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Everything an admin of Warewulf 4 types: verbs, their aliases and their flags, walked through and tried."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import click
import pytest

from wwfast.api.sources import FORMATS
from wwfast.cli.main import cli, main
from wwfast.paths import Paths

#: Warewulf 4.6's commands, aliases behind bars, with their own flags.
TREE = """\
clean
configure -a --all
configure dhcp
configure hostfile
configure nfs
configure warewulfd
configure ssh -t --keytypes
configure tftp -s --show
configure tls|keys|key|cert|crt --import --export -f --force
genconfig|cnf
genconfig man|man_pages
genconfig reference
genconfig warewulfconf|cnf print
genconfig completion
image|vnfs|container
image build -a --all -f --force --syncuser
image copy|cp -b --build
image delete|rm|remove|del -y --yes
image exec -b --bind --syncuser --build -n --node
image import|pull -f --force -u --update -b --build --syncuser --nohttps --username --password --platform
image import --passwd --arch
image kernels|kernel
image list|ls -l --long -k --kernel -s --size -c --chroot --compressed
image rename|mv -b --build
image shell|chroot -b --bind --syncuser --build -n --node
image show -a --all
image syncuser --write --build
node|nodes
node add|new|create
node console
node delete|rm|del|remove -y --yes
node edit --noheader
node export
node import -y --yes
node list|ls -n --net -i --ipmi -a --all -l --long -y --yaml -j --json
node sensors -F --full -s --show --fanout
node set|modify -a --all -y --yes -f --force
node status -w --watch -U --update -t --time -l --last -r --reverse -u --unknown
node unset -y --yes -f --force
overlay build --workers
overlay chmod
overlay chown
overlay create|new|add
overlay delete|rm|remove|del -f --force -p --parents
overlay edit -p --parents -m --mode
overlay import|cp -o --overwrite -p --parents --workers
overlay info|variables|vars
overlay list|ls -a --all -l --long -p --path
overlay mkdir -m --mode
overlay show|cat -r --render -q --quiet
power on -s --show --fanout
power off -s --show --fanout
power cycle -s --show --fanout
power reset -s --show --fanout
power soft -s --show --fanout
power status -s --show --fanout
profile add|new|create
profile delete|remove|rm|del -y --yes
profile edit --noheader
profile list|ls -a --all -y --yaml -j --json
profile set|modify -y --yes
profile unset
server
ssh -n --dryrun -f --fanout -s --sleep --rsh
upgrade config -i --input-path -o --output-path
upgrade nodes --add-defaults --replace-overlays -i --input-path -o --output-path --with-warewulfconf
version|vers -f --full
completion
help
"""
#: Those of the root, which Warewulf takes before and after any verb.
GLOBAL = ("--verbose", "--debug", "--loglevel=20", "--emptyconf")
LEAST = 291  # verbs, aliases and flags in TREE


def lines() -> Iterator[tuple[list[tuple[str, ...]], list[str]]]:
    """Each spelling of each command, and its flags."""
    for line in TREE.splitlines():
        words = [word for word in line.split() if not word.startswith("-")]
        flags = [word for word in line.split() if word.startswith("-")]
        yield list(itertools.product(*(word.split("|") for word in words))), flags


def command(words: tuple[str, ...]) -> click.Command:
    at: click.Command = cli
    for word in words:
        assert isinstance(at, click.Group), words
        found = at.get_command(click.Context(at), word)
        assert found is not None, words
        at = found
    return at


@pytest.mark.parametrize(
    ("spellings", "flags"), list(lines()), ids=[" ".join(line.split()[:2]) for line in TREE.splitlines()]
)
def test_wwctl_commands_aliases_and_flags_are_there(spellings: list[tuple[str, ...]], flags: list[str]) -> None:
    found = [command(words) for words in spellings]
    assert len({each.name for each in found}) == 1, "aliases are one command"
    options = {opt for param in found[0].params for opt in (*param.opts, *param.secondary_opts)}
    assert set(flags) <= options


@pytest.mark.parametrize("name", FORMATS)
def test_importer_of_each_format_is_a_command_with_the_flags_of_all(name: str) -> None:
    found = command(("import", name))
    options = {opt for param in found.params for opt in (*param.opts, *param.secondary_opts)}
    assert {"--profile", "--with-secrets", "--json", "--yes", "--dry-run", "--force"} <= options
    assert ("--map" in options) is (name in ("ansible", "csv"))
    assert "Example: wwfast import" in (found.epilog or "")


def test_wwctl_tree_is_whole() -> None:
    assert sum(len(spellings) + len(flags) for spellings, flags in lines()) >= LEAST


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), *words])
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


@pytest.mark.parametrize("flag", GLOBAL)
@pytest.mark.parametrize("words", [("node", "list"), ("profile", "list"), ("overlay", "list"), ("config", "show")])
def test_global_flags_stand_before_and_after_the_verb(
    run: Callable[..., tuple[int, str, str]], words: tuple[str, ...], flag: str
) -> None:
    before, after = run(flag, *words), run(*words, flag)
    assert before[0] == after[0] == 0
    assert before[1] == after[1]
    assert run(words[0], flag, *words[1:])[0] == 0


def test_global_flags_have_their_effect_after_the_verb(paths: Paths, run: Callable[..., tuple[int, str, str]]) -> None:
    other = paths.root / "other.conf"
    other.write_text("ipaddr: 10.7.7.7\n")
    paths.conf.write_text("ipaddr: 10.1.1.1\n")
    assert "10.7.7.7" in run("config", "show", "--warewulfconf", str(other))[1]
    assert "10.1.1.1" not in run("config", "show", "--emptyconf")[1]
    status, _, err = run("config", "show", "--warewulfconf", str(paths.root / "nowhere"))
    assert (status, "there is no" in err) == (1, True)


def test_global_flags_of_a_foreign_command_are_its_own(run: Callable[..., tuple[int, str, str]]) -> None:
    for words in (("image", "exec"), ("ssh",)):
        assert "--emptyconf" not in {opt for param in command(words).params for opt in param.opts}


def test_help_and_version_and_completion(run: Callable[..., tuple[int, str, str]]) -> None:
    assert "Usage: wwfast node set" in run("help", "node", "set")[1]
    assert run("help", "node", "nothing")[0] == 2
    assert "Usage: wwfast" in run("help")[1]
    assert "zstandard" in run("version", "--full")[1]
    for shell in ("bash", "zsh", "fish"):
        assert "_WWFAST_COMPLETE" in run("completion", shell)[1]


def test_genconfig_reference_has_every_command(paths: Paths, run: Callable[..., tuple[int, str, str]]) -> None:
    place = paths.root / "reference"
    assert run("genconfig", "reference", str(place))[0] == 0
    assert "--kernelargs" in (place / "wwfast_node_set.md").read_text()
    assert len(list(place.iterdir())) > 80


def test_import_warewulf_has_its_flags() -> None:
    options = {opt for param in command(("import", "warewulf")).params for opt in param.opts}
    assert {"--from", "--built", "--dry-run", "-n", "--json", "--yes", "-y"} <= options

"""What the words of an option mean: truth values, lists, tags and kernel arguments, as typed on a command line."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wwfast.cli.nodes.edits import commands
from wwfast.cli.nodes.fields import set_request
from wwfast.config import words
from wwfast.errors import UsageError
from wwfast.nodes.edit.change import Request, checked
from wwfast.nodes.edit.flags import Flag, flags
from wwfast.nodes.text.source import NODES, PROFILES

SELECTORS = {"disk": ["--diskname", "/dev/sda"], "fs": ["--fsname", "/dev/sdb"]}
SELECTORS["part"] = [*SELECTORS["disk"], "--partname", "root"]


def asked(section: str, verb: str, *argv: str) -> tuple[Request, tuple[str, ...]]:
    """What a command line asks for, and the names in it."""
    command = commands(section)[verb]
    given = command.make_context(verb, list(argv)).params
    return set_request(given), given["names"]


TRUTHS = [
    (section, verb, flag)
    for section in (NODES, PROFILES)
    for verb in ("add", "set")
    for flag in flags()
    if flag.takes_bool and not (section == PROFILES and flag.doc.node_only)
]


@pytest.mark.parametrize(
    ("section", "verb", "flag"), TRUTHS, ids=[f"{section} {verb} {flag.name}" for section, verb, flag in TRUTHS]
)
def test_a_truth_value_behind_its_flag_is_its_value_and_never_a_name(section: str, verb: str, flag: Flag) -> None:
    for word, stored in (("false", "false"), ("NO", "false"), ("true", "true"), ("yes", "true"), ("0", "false")):
        for spelled in (f"--{flag.name}", *([f"-{flag.doc.short}"] if flag.doc.short else [])):
            for argv in ([spelled, word, "x"], ["x", spelled, word], ["x", f"{spelled}={word}"]):
                request, names = asked(section, verb, *argv, *SELECTORS.get(flag.family, ()))
                assert names == ("x",)
                assert checked(request, adding=verb == "add").values == {flag.name: stored}
    for argv in (["x", f"--{flag.name}"], [f"--{flag.name}", "x"], [f"--{flag.name}", "--", "x"]):
        request, names = asked(section, verb, *SELECTORS.get(flag.family, ()), *argv)
        assert (names, request.values) == (("x",), {flag.name: "true"})
    for word in "tfYN":
        with pytest.raises(UsageError, match="is that a value or a name"):
            asked(section, verb, f"--{flag.name}", word)


@pytest.mark.parametrize("value", ["--onboot", "-I=10.0.0.1", "false", "--", "--tagadd=a=b"])
def test_the_value_of_an_option_is_taken_as_it_stands(value: str) -> None:
    request, names = asked(NODES, "set", "--comment", value, "n1")
    assert (request.values, names) == ({"comment": value}, ("n1",))


TAGS = {
    "route1=192.168.2.0/24,192.168.1.254": {"route1": "192.168.2.0/24,192.168.1.254"},
    "gpuMigProfiles=14,14,14,15": {"gpuMigProfiles": "14,14,14,15"},
    "a=1,b=2": {"a": "1", "b": "2"},
    "b=x=y": {"b": "x=y"},
    "a=": {"a": ""},
    "a=,b=": {"a": "", "b": ""},
    '"a=1,2"': {"a": "1,2"},
    '"a=1,2",b=3': {"a": "1,2", "b": "3"},
    '"opts=a=b,c"': {"opts": "a=b,c"},
    '"a=say ""hi""",b=1': {"a": 'say "hi"', "b": "1"},
    'say=he said "hi", twice': {"say": 'he said "hi", twice'},
    "motd=line one\nline two": {"motd": "line one\nline two"},
    "motd=a=1\nb": {"motd": "a=1\nb"},
    "url=http://h/x?a=1&b=2": {"url": "http://h/x?a=1&b=2"},
}


@pytest.mark.parametrize(("given", "tags"), TAGS.items(), ids=TAGS)
@pytest.mark.parametrize("flag", ["tag", "nettag", "ipmitag"])
def test_tags_are_taken_as_pflag_takes_them(flag: str, given: str, tags: dict[str, str]) -> None:
    for argv in ([f"--{flag}add", given], [f"--{flag}add={given}"]):
        assert asked(NODES, "set", "n1", *argv)[0].add == {flag: tags}


@pytest.mark.parametrize("given", ["x", "", "=1", "a=1,b=2,", 'a=1,"b=2', 'a=1,"b=2"c', "a=b,c=d,e", ","])
def test_tags_that_are_none_are_refused_with_the_right_spelling(given: str) -> None:
    with pytest.raises(UsageError, match="--tagadd: "):
        asked(NODES, "set", "n1", "--tagadd", given)
    if given == "a=b,c=d,e":
        with pytest.raises(UsageError, match=r"""'"a=b,c=d,e"'"""):
            asked(NODES, "set", "n1", "--tagadd", given)


ARGUMENTS = {
    "quiet,splash": ["quiet", "splash"],
    "quiet, splash": ["quiet", "splash"],
    "console=ttyS0,115200": ["console=ttyS0,115200"],
    "quiet,console=tty0,console=ttyS0,115200n8,ro": ["quiet", "console=tty0", "console=ttyS0,115200n8", "ro"],
    "quiet,3": ["quiet", "3"],
    'quiet,"isolcpus=1,2,domain,3-4"': ["quiet", "isolcpus=1,2,domain,3-4"],
    "isolcpus=1,2,4-7": ["isolcpus=1,2,4-7"],
    '"console=ttyS0,115200",quiet': ["console=ttyS0,115200", "quiet"],
    'a=1,"2"': ["a=1", "2"],
    "quiet console=ttyS0,115200n8 isolcpus=1,2": ["quiet", "console=ttyS0,115200n8", "isolcpus=1,2"],
    'dyndbg="file a.c +p; b" modprobe.blacklist=nouveau,nvidia': [
        'dyndbg="file a.c +p; b"',
        "modprobe.blacklist=nouveau,nvidia",
    ],
    '"quiet splash"': ["quiet splash"],
    " ro ": ["ro"],
    "": [],
}


@pytest.mark.parametrize(("given", "meant"), ARGUMENTS.items(), ids=ARGUMENTS)
def test_kernel_arguments_keep_their_commas(given: str, meant: list[str]) -> None:
    assert [each.strip() for each in words.arguments(given)] == meant


@pytest.mark.parametrize("given", ["a, b c", 'a="b c', "a,,b", ",", "a,", "isolcpus=1,2,domain,3-4", "a=1,quiet,3"])
def test_kernel_arguments_that_may_mean_two_things_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match="--kernelargs: "):
        asked(NODES, "set", "n1", "-A", given)


def test_kernel_arguments_that_a_comma_may_have_torn_are_told_with_the_way_to_keep_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    request, _ = asked(NODES, "set", "n1", "--kernelargs", "quiet,blacklist=nouveau,nvidia")
    assert request.values == {"kernelargs": ["quiet", "blacklist=nouveau", "nvidia"]}
    assert """for one write --kernelargs '"blacklist=nouveau,nvidia"'""" in capsys.readouterr().err
    for clear in ('quiet,"blacklist=nouveau,nvidia"', "quiet,ro", "a=1,b=2", "quiet blacklist=nouveau,nvidia"):
        asked(NODES, "set", "n1", "--kernelargs", clear)
    assert capsys.readouterr().err == ""


@given(st.lists(st.text(st.sampled_from('ab,"= \n\t\x85'), min_size=1).filter(str.strip), max_size=5))
def test_a_list_is_shown_as_an_option_would_take_it(values: list[str]) -> None:
    assert words.items(words.join(values)) == values


@given(st.text(st.sampled_from('ab12,"= \n\x1b'), max_size=12))
@example("a=1,\x1bb,2\x1bc")
def test_no_text_makes_more_of_an_option_than_words_or_a_refusal(text: str) -> None:
    for split in (words.items, words.arguments, words.pairs):
        said = ""
        try:
            assert all(split(text))
        except ValueError as error:
            said = str(error)
        assert said.isprintable()

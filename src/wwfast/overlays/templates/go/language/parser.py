"""Tokens to the tree of a template (text/template's grammar, Go 1.26). Raises SyntaxFault where Go refuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping

from wwfast.overlays.templates.go.language import tree as syntax
from wwfast.overlays.templates.go.language.lexer import Kind, SyntaxFault, Token, tokens

DEEPEST = 100  # parentheses and blocks within each other
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def parse(source: str, known: Collection[str], refused: Mapping[str, str]) -> syntax.Tree:
    """The tree of a template; `known` are names of functions, `refused` others, and why they are not there."""
    parser = Parser(source, known, refused)
    body: list[syntax.Part] = []
    while parser.peek().kind is not Kind.END:
        part = parser.part(top=True)
        if isinstance(part, Token):
            raise SyntaxFault(part.at, f"unexpected {{{{{part.text}}}}}")
        if part is not None:
            body.append(part)
    return syntax.Tree(body, parser.defined, frozenset(parser.words), parser.comments, frozenset(parser.assigned))


class Parser:
    def __init__(self, source: str, known: Collection[str], refused: Mapping[str, str]) -> None:
        every = list(tokens(source))
        self.comments = [token.text[2:-2] for token in every if token.kind is Kind.COMMENT]
        self._tokens = [token for token in every if token.kind is not Kind.COMMENT]
        self._at = 0
        self._known, self._refused = known, refused
        self._variables = ["$"]
        self._loops = 0
        self._depth = 0
        self.defined: dict[str, list[syntax.Part]] = {}
        self.words: set[str] = set()
        self.assigned: set[str] = set()

    def peek(self, *, blanks: bool = False) -> Token:
        if not blanks:
            self._skip()
        return self._tokens[self._at]

    def next(self, *, blanks: bool = False) -> Token:
        token = self.peek(blanks=blanks)
        self._at += 1
        return token

    def _skip(self) -> None:
        while self._tokens[self._at].kind is Kind.SPACE:
            self._at += 1

    def expect(self, kind: Kind, where: str) -> Token:
        token = self.next()
        if token.kind is not kind:
            raise SyntaxFault(token.at, f"unexpected {token.text or 'end'!r} in {where}")
        return token

    # -- parts -------------------------------------------------------------------------------------------------

    def part(self, *, top: bool = False) -> syntax.Part | Token | None:
        """The next part; the token of an `else` or `end`; None for a definition."""
        token = self.next()
        if token.kind is Kind.TEXT:
            return syntax.Text(token.text, token.at)
        if token.kind is Kind.END:
            raise SyntaxFault(token.at, "unexpected EOF")
        word = self.peek()
        if word.kind is Kind.WORD:
            match word.text:
                case "if" | "with" | "range":
                    return self._branch(self.next())
                case "end" | "else":
                    return self.next()
                case "break" | "continue":
                    return self._jump(self.next())
                case "template" | "block":
                    return self._call(self.next())
                case "define":
                    if not top:
                        raise SyntaxFault(word.at, "unexpected {{define}}")
                    self._define(self.next())
                    return None
        return syntax.Action(self._pipeline("command", Kind.RIGHT), word.at)

    def _parts(self) -> tuple[list[syntax.Part], Token]:
        """Parts up to `else` or `end`."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise SyntaxFault(self.peek().at, "it is nested too deeply")
        found: list[syntax.Part] = []
        while True:
            part = self.part()
            if isinstance(part, Token):
                self._depth -= 1
                return found, part
            if part is not None:
                found.append(part)

    def _branch(self, word: Token) -> syntax.Branch:
        scope = len(self._variables)
        pipeline = self._pipeline(word.text, Kind.RIGHT)
        self._loops += word.text == "range"
        body, stop = self._parts()
        self._loops -= word.text == "range"
        otherwise: list[syntax.Part] = []
        if stop.text == "else":
            again = self.peek()
            if again.kind is Kind.WORD and again.text == word.text != "range":
                otherwise = [self._branch(self.next())]
            else:
                self.expect(Kind.RIGHT, "else")
                otherwise, stop = self._parts()
                if stop.text != "end":
                    raise SyntaxFault(stop.at, "expected end; found {{else}}")
                self.expect(Kind.RIGHT, "end")
        else:
            self.expect(Kind.RIGHT, "end")
        del self._variables[scope:]
        return syntax.Branch(word.text, pipeline, body, otherwise, word.at)

    def _jump(self, word: Token) -> syntax.Jump:
        self.expect(Kind.RIGHT, word.text)
        if not self._loops:
            raise SyntaxFault(word.at, f"{{{{{word.text}}}}} outside {{{{range}}}}")
        return syntax.Jump(word.text, word.at)

    def _name(self, where: str) -> str:
        token = self.next()
        if token.kind not in (Kind.STRING, Kind.RAW):
            raise SyntaxFault(token.at, f"unexpected {token.text!r} in {where}")
        return self._unquoted(token)

    def _call(self, word: Token) -> syntax.Call:
        name = self._name(f"{word.text} clause")
        pipeline = None
        if word.text == "block" or self.peek().kind is not Kind.RIGHT:
            pipeline = self._pipeline(f"{word.text} clause", Kind.RIGHT)
        else:
            self.next()
        if word.text == "block":
            self._body_of(name, word)
        return syntax.Call(name, pipeline, word.at)

    def _define(self, word: Token) -> None:
        name = self._name("define clause")
        self.expect(Kind.RIGHT, "define clause")
        self._body_of(name, word)

    def _body_of(self, name: str, word: Token) -> None:
        outside = self._variables, self._loops
        self._variables, self._loops = ["$"], 0
        body, stop = self._parts()
        if stop.text != "end":
            raise SyntaxFault(stop.at, f"unexpected {{{{else}}}} in {word.text} clause")
        self.expect(Kind.RIGHT, "end")
        self._variables, self._loops = outside
        empty = all(isinstance(part, syntax.Text) and not part.text.strip() for part in body)
        if name not in self.defined or not empty:
            before = self.defined.get(name, [])
            if any(not isinstance(part, syntax.Text) or part.text.strip() for part in before):
                raise SyntaxFault(word.at, f"multiple definition of template {name!r}")
            self.defined[name] = body

    # -- pipelines ---------------------------------------------------------------------------------------------

    def _pipeline(self, context: str, stop: Kind) -> syntax.Pipeline:
        made = syntax.Pipeline([], self.peek().at)
        while self.peek().kind is Kind.VARIABLE:
            start = self._at
            variable = self.next()
            follows = self.next()
            if follows.kind in (Kind.DECLARE, Kind.ASSIGN):
                made.declares = follows.kind is Kind.DECLARE
                self._declare(made, variable)
                if not made.declares:
                    self.assigned |= {*made.variables}
                break
            if follows.kind is not Kind.COMMA:
                self._at = start
                break
            self._declare(made, variable)
            if context != "range" or len(made.variables) > 1:
                raise SyntaxFault(follows.at, f"too many declarations in {context}")
            if self.peek().kind is not Kind.VARIABLE:
                raise SyntaxFault(self.peek().at, "range can only initialize variables")
        while True:
            token = self.peek()
            if token.kind is stop:
                self.next()
                break
            made.commands.append(self._command(context))
        if not made.commands:
            raise SyntaxFault(made.at, f"missing value for {context}")
        for number, command in enumerate(made.commands[1:], 2):
            if isinstance(command.operands[0], syntax.Literal | syntax.Nil | syntax.Dot):
                raise SyntaxFault(command.at, f"non executable command in pipeline stage {number}")
        return made

    def _declare(self, pipeline: syntax.Pipeline, variable: Token) -> None:
        self.words.add(variable.text)
        pipeline.variables.append(variable.text)
        self._variables.append(variable.text)

    def _command(self, context: str) -> syntax.Command:
        made = syntax.Command([], self.peek().at)
        while True:
            operand = self._operand()
            if operand is not None:
                made.operands.append(operand)
            token = self.next(blanks=True)
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT, Kind.CLOSE):
                self._at -= 1
            elif token.kind is not Kind.PIPE:
                raise SyntaxFault(token.at, f"unexpected {token.text or 'end'!r} in operand")
            break
        if not made.operands:
            if token.kind is Kind.PIPE:
                raise SyntaxFault(made.at, f"missing value for {context}")
            raise SyntaxFault(made.at, "empty command")
        # Go takes `{{.A | }}` for `{{.A}}`; but not a second bar.
        if token.kind is Kind.PIPE and self.peek().kind is Kind.PIPE:
            raise SyntaxFault(self.peek().at, f"unexpected '|' in {context}")
        return made

    def _operand(self) -> syntax.Operand | None:
        term = self._term()
        if term is None or self.peek(blanks=True).kind is not Kind.FIELD:
            return term
        at, names = self.peek().at, []
        while self.peek(blanks=True).kind is Kind.FIELD:
            names.append(self._field(self.next()))
        if isinstance(term, syntax.Fields | syntax.Variable):
            term.names += names
            return term
        if isinstance(term, syntax.Literal | syntax.Nil | syntax.Dot):
            raise SyntaxFault(at, "unexpected . after a term")
        return syntax.Chain(term, names, at)

    def _field(self, token: Token) -> str:
        name = token.text[1:]
        self.words.add(name)
        return name

    def _term(self) -> syntax.Operand | None:
        token = self.next()
        at = token.at
        match token.kind:
            case Kind.WORD:
                return self._word(token)
            case Kind.DOT:
                return syntax.Dot(at)
            case Kind.VARIABLE:
                self.words.add(token.text)
                if token.text not in self._variables:
                    raise SyntaxFault(at, f"undefined variable {token.text!r}")
                return syntax.Variable(token.text, [], at)
            case Kind.FIELD:
                return syntax.Fields([self._field(token)], at)
            case Kind.STRING | Kind.RAW:
                return syntax.Literal(self._unquoted(token), at)
            case Kind.CHARACTER:
                letter = self._unquoted(token)
                if len(letter) != 1:
                    raise SyntaxFault(at, f"malformed character constant: {token.text}")
                return syntax.Literal(ord(letter), at, ord(letter))
            case Kind.NUMBER:
                return number(token)
            case Kind.OPEN:
                self._depth += 1
                if self._depth > DEEPEST:
                    raise SyntaxFault(at, "max expression depth exceeded")
                inner = self._pipeline("parenthesized pipeline", Kind.CLOSE)
                self._depth -= 1
                return inner
        self._at -= 1
        return None

    def _word(self, token: Token) -> syntax.Operand:
        match token.text:
            case "true" | "false":
                return syntax.Literal(token.text == "true", token.at)
            case "nil":
                return syntax.Nil(token.at)
            case "if" | "with" | "range" | "end" | "else" | "template" | "block" | "define" | "break" | "continue":
                raise SyntaxFault(token.at, f"unexpected <{token.text}>")
        if token.text in self._refused and token.text not in self._known:
            raise SyntaxFault(token.at, f"function {token.text!r} is not there: {self._refused[token.text]}")
        if token.text not in self._known:
            raise SyntaxFault(token.at, f"function {token.text!r} not defined")
        self.words.add(token.text)
        return syntax.Function(token.text, token.at)

    def _unquoted(self, token: Token) -> str:
        if token.kind is Kind.RAW:
            text = token.text[1:-1].replace("\r", "")
        else:
            text = _ESCAPE.sub(lambda match: _unescaped(match, token), token.text[1:-1])
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        self.words |= {text, *text.split(".")}
        return text


def _unescaped(match: re.Match[str], token: Token) -> str:
    code, short, long, octal, letter = match.groups()
    if code or octal:
        byte = int(code, 16) if code else int(octal, 8)
        if byte > 255:
            raise SyntaxFault(token.at, "invalid syntax")
        if token.kind is Kind.CHARACTER or byte < 128:
            return chr(byte)
        return chr(0xDC00 + byte)  # as surrogateescape has it; joined to characters by whoever asked
    if short or long:
        rune = int(short or long, 16)
        if rune > 0x10FFFF or 0xD800 <= rune < 0xE000:
            raise SyntaxFault(token.at, "invalid syntax")
        return chr(rune)
    if letter in _SIMPLE:
        return _SIMPLE[letter]
    if letter == token.text[0]:
        return str(letter)
    raise SyntaxFault(token.at, f"invalid escape \\{letter}")


def number(token: Token) -> syntax.Literal:
    """A whole number or not, as Go's syntax says; `exact` where it can stand for a whole one."""
    text = token.text
    if text.endswith("i") and not text.lower().lstrip("+-").startswith("0x"):
        raise SyntaxFault(token.at, "complex numbers are not supported")
    bare = text.lstrip("+-")
    legacy = re.fullmatch(r"0[0-7_]+", bare) is not None
    try:
        if re.search(r"[.pP]", bare) or (re.search(r"[eE]", bare) and not bare.lower().startswith("0x")):
            value = float.fromhex(text) if bare.lower().startswith("0x") else float(text)
            return syntax.Literal(value, token.at, int(value) if value.is_integer() else None)
        whole = int(text.replace(bare, "0o" + bare[1:].lstrip("_")), 0) if legacy else int(ast.literal_eval(text))
    except (ValueError, SyntaxError, OverflowError) as error:
        raise SyntaxFault(token.at, f"bad number syntax: {text!r}") from error
    if not -(1 << 63) <= whole < 1 << 63:
        raise SyntaxFault(token.at, f"{text} overflows int")
    return syntax.Literal(whole, token.at, whole)

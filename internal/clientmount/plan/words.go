package plan

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// word is one word of a template. quoted means that a part of it was in quotes, so that
// it stays an argument even if it becomes empty.
type word struct {
	text   string
	quoted bool
}

// words returns the arguments of a built-in command from the profile's template, without
// a shell. It expands the administrator's own variables, splits the result as a shell
// does, and then expands data variables in each word. So data is never split and never
// interpreted as syntax.
func (v *variables) words(template string) ([]string, error) {
	template, err := v.expand(template, textOnly)
	if err != nil {
		return nil, err
	}
	split, err := split(template)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(split))
	for _, w := range split {
		arg, err := v.expand(w.text, dataOnly)
		if err != nil {
			return nil, err
		}
		if i := strings.IndexByte(arg, '$'); i >= 0 {
			return nil, fault("unknown variable %s in %s: it is not set on compute nodes; use a hook command for shell variables",
				variableName(arg[i:]), text.Quote(w.text))
		}
		if arg != "" || w.quoted {
			out = append(out, arg)
		}
	}
	return out, nil
}

// variableName returns the variable name at the start of s.
func variableName(s string) string {
	end := 1
	for end < len(s) && text.Only(s[end:end+1], "_{}") {
		end++
	}
	if end > maxKey {
		end = maxKey
	}
	return s[:end]
}

// split splits a template into words by the quoting rules of a shell: '…' is literal,
// "…" keeps blanks, and a backslash quotes the next character. Syntax that needs a shell
// is an error; wildcards and ~ are ordinary characters.
func split(s string) ([]word, error) {
	s = strings.TrimSpace(s)
	var out []word
	var b strings.Builder
	inWord, quoted := false, false
	end := func() {
		if inWord {
			out = append(out, word{b.String(), quoted})
		}
		b.Reset()
		inWord, quoted = false, false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == ' ' || c == '\t':
			end()
		case c == '\'':
			n := strings.IndexByte(s[i+1:], '\'')
			if n < 0 {
				return nil, fault("unclosed ' in %s", text.Quote(s))
			}
			b.WriteString(s[i+1 : i+1+n])
			inWord, quoted = true, true
			i += n + 1
		case c == '"':
			n, err := doubleQuoted(&b, s[i+1:])
			if err != nil {
				return nil, err
			}
			inWord, quoted = true, true
			i += n
		case c == '\\':
			i++
			if i == len(s) {
				return nil, fault("backslash at the end of %s", text.Quote(s))
			}
			if s[i] == '\n' { // a continued line
				continue
			}
			b.WriteByte(s[i])
			inWord = true
		case strings.IndexByte(";|&<>()`\n\r", c) >= 0, c == '#' && !inWord, c == '$' && i+1 < len(s) && strings.IndexByte("('\"", s[i+1]) >= 0:
			return nil, shellSyntax(c, s)
		default:
			b.WriteByte(c)
			inWord = true
		}
	}
	end()
	for _, w := range out {
		if strings.IndexFunc(w.text, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
			return nil, fault("control character in %s", text.Quote(s))
		}
	}
	return out, nil
}

// doubleQuoted reads up to the closing quote and returns the number of bytes read,
// including the quote.
func doubleQuoted(b *strings.Builder, s string) (int, error) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1, nil
		case c == '`', c == '$' && i+1 < len(s) && s[i+1] == '(':
			return 0, shellSyntax(c, s)
		case c == '\\' && i+1 < len(s) && strings.IndexByte("$`\"\\", s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case c == '\\' && i+1 < len(s) && s[i+1] == '\n':
			i++
		default:
			b.WriteByte(c)
		}
	}
	return 0, fault("unclosed \" in %s", text.Quote(s))
}

func shellSyntax(c byte, s string) error {
	return fault("%s in %s is shell syntax, but this command runs without a shell: use a hook command", text.Quote(string(rune(c))), text.Quote(s))
}

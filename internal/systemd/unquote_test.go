package systemd

import (
	"errors"
	"strings"
)

// unquote reads a command line as systemd does, written from systemd.service(5):
// words, quotes, escapes, then specifiers, then variables, none of which may be
// left.
func unquote(line string) (words []string, err error) {
	var word strings.Builder
	inWord, quoted := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\':
			if i++; i == len(line) {
				return nil, errors.New("a backslash at the end")
			}
			if line[i] != '\\' && line[i] != '"' && line[i] != '\'' {
				return nil, errors.New("an escape: " + line[i:])
			}
			word.WriteByte(line[i])
			inWord = true
		case quoted != 0 && c == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quoted, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case c == ';' && !inWord && (i+1 == len(line) || line[i+1] == ' '):
			return nil, errors.New("a second command")
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quoted != 0 {
		return nil, errors.New("an open quote")
	}
	if inWord {
		words = append(words, word.String())
	}
	for i := range words {
		for _, special := range []string{"%", "$"} {
			if words[i], err = single(words[i], special); err != nil {
				return nil, err
			}
		}
	}
	return words, nil
}

// single halves doubled characters and refuses lone ones.
func single(text, special string) (string, error) {
	text = strings.ReplaceAll(text, special+special, "\x00")
	if strings.Contains(text, special) {
		return "", errors.New("a lone " + special)
	}
	return strings.ReplaceAll(text, "\x00", special), nil
}

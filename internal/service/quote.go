package service

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bare are the characters that mean nothing to systemd anywhere in a word.
const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

// quote returns text as one word of ExecStart= (systemd.service(5), Command
// lines): specifiers and variables of systemd stay what they were, characters.
func quote(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", fmt.Errorf("the argument %.80q is not UTF-8, which a unit must be", text)
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("the argument %.80q has a line break or another control character, which a unit cannot hold", text)
	}
	word := strings.NewReplacer("%", "%%", "$", "$$", `\`, `\\`, `"`, `\"`).Replace(text)
	if text == "" || strings.Trim(text, bare) != "" {
		word = `"` + word + `"`
	}
	return word, nil
}

// quoteProgram is quote for the first word, in which variables are not replaced,
// so that a dollar sign has no form that is read back.
func quoteProgram(path string) (string, error) {
	if strings.HasPrefix(path, "/") && !strings.Contains(path, "$") {
		return quote(path)
	}
	return "", fmt.Errorf("the program %.80q cannot be named in a unit: an absolute path without a dollar sign is wanted", path)
}

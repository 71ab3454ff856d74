// Package systemd writes texts into units of systemd so that systemd reads them as
// they were.
//
// It must not know whose units those are.
package systemd

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bare are the characters that mean nothing to systemd anywhere in a word.
const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

// Quote returns text as one word of ExecStart= (systemd.service(5), Command
// lines): specifiers and variables of systemd stay what they were, characters.
func Quote(text string) (string, error) {
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

// QuoteProgram is Quote for the first word, in which variables are not replaced,
// so that a dollar sign has no form that is read back.
func QuoteProgram(path string) (string, error) {
	if strings.HasPrefix(path, "/") && !strings.Contains(path, "$") {
		return Quote(path)
	}
	return "", fmt.Errorf("the program %.80q cannot be named in a unit: an absolute path without a dollar sign is wanted", path)
}

// QuoteEnvironment returns an assignment for Environment= (systemd.exec(5)), in
// which only specifiers have a meaning.
func QuoteEnvironment(name, value string) (string, error) {
	if name == "" || strings.Trim(name, nameCharacters) != "" || name[0] >= '0' && name[0] <= '9' {
		return "", fmt.Errorf("%.80q is no name of an environment variable", name)
	}
	word, err := Quote(value)
	if err != nil {
		return "", fmt.Errorf("the value of %s: %w", name, err)
	}
	word = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(word, `"`), `"`), "$$", "$")
	return `"` + name + "=" + word + `"`, nil
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

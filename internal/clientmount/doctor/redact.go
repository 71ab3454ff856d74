package doctor

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// redacted replaces each secret in a bundle.
const redacted = "[redacted]"

// redactor removes secrets from texts: those that the daemon uses, wherever they occur, and
// everything that has the form of a secret.
type redactor struct {
	known *strings.Replacer
	plain map[string]bool // names of environment variables whose values are not secret
}

// minSecret is the length from which a value is removed wherever it occurs. A shorter one, such as
// "true", would also remove ordinary words.
const minSecret = 8

// newRedactor returns a redactor for the secrets of the daemon and for the values in its environment.
func newRedactor(secrets, environ []string, table *config.Table) *redactor {
	r := &redactor{plain: map[string]bool{}}
	for _, name := range strings.Fields(plainVariables) {
		r.plain[name] = true
	}
	for i := range table.Settings { // paths, names and numbers; none is a secret
		for _, env := range table.Settings[i].Env {
			r.plain[env.Name] = true
		}
	}
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); !r.plain[name] {
			secrets = append(secrets, value)
		}
	}
	var forms []string
	for _, s := range secrets {
		forms = append(forms, s, base64.StdEncoding.EncodeToString([]byte(s)))
		if lines := strings.Fields(s); len(lines) > 1 { // a key; a part of it may be left out
			forms = append(forms, lines...)
		}
	}
	forms = slices.DeleteFunc(forms, func(s string) bool { return len(s) < minSecret || strings.HasPrefix(s, "-----") })
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) }) // the longest match first
	var pairs []string
	for _, s := range slices.Compact(forms) {
		pairs = append(pairs, s, redacted)
	}
	r.known = strings.NewReplacer(pairs...)
	return r
}

// plainVariables are the variables of systemd, of the Go runtime and of shells whose values are not
// secret. The value of any other variable is considered as one.
const plainVariables = `PATH HOME LANG LANGUAGE LC_ALL LC_CTYPE SHELL USER LOGNAME PWD OLDPWD SHLVL TERM TZ HOSTNAME
	RUNTIME_DIRECTORY CREDENTIALS_DIRECTORY INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC SYSTEMD_EXEC_PID
	MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE GOMEMLIMIT GOGC GOMAXPROCS GODEBUG GOTRACEBACK
	HTTP2_READ_IDLE_TIMEOUT_SECONDS HTTP2_PING_TIMEOUT_SECONDS KUBECONFIG NO_PROXY no_proxy`

// forms are the forms of secrets, with their replacements. A value that starts with a slash is the
// path of a file. A form with a mark is within one line that contains the mark, which saves much time.
var forms = []struct {
	mark, pattern, by string
}{
	{"", `(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`, redacted},
	{"eyJ", `eyJ[\w-]{8,}(?:\.[\w-]*){0,2}`, redacted}, // a JSON web token, or its start
	{"", `(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{8,}`, "$1$2" + redacted},
	{"://", `(://[^/\s:@]*:)[^/\s@]+@`, "${1}" + redacted + "@"},
	{"://", `(://)[^/\s:@]{8,}@`, "${1}" + redacted + "@"}, // of a repository
	// NAME=VALUE and "name": "value", then --name VALUE. In quotes, a value may have spaces.
	{"", `(?i)(` + names + `["']?\s*[=:]\s*)` + value(""), "${1}${2}${3}" + redacted},
	{"--", `(?i)(--[\w-]*` + names + `[ \t]+)` + value("-"), "${1}${2}${3}" + redacted},
	{"curl", `(\bcurl\b.*?\s(?:-u|--user|-U|--proxy-user)[ =]*)(?:(["'][^\s:"']*:)[^"'\[][^"']*|([^\s:"']*:)[^\s"'\[][^\s"']*)`, "${1}${2}${3}" + redacted},
}

// names is what the names of secrets contain.
const names = `(?:password|passwd|passphrase|(?:\b|_)pass|secret|token|api[-_]?key|private[-_]?key|access[-_]?key|client-key-data)`

// value returns the form of a value, in quotes or not, that does not start with one of the characters.
func value(not string) string {
	return `(?:(["'])[^"'\n/\[` + not + `][^"'\n]{3,}|(["']?)[^\s"',;/\[` + not + `][^\s"',;]{3,})`
}

// patterns returns the compiled forms. The daemon, which has this package as well, never needs them.
var patterns = sync.OnceValue(func() (list []*regexp.Regexp) {
	for _, f := range forms {
		list = append(list, regexp.MustCompile(f.pattern))
	}
	return list
})

// text removes the secrets from a text.
func (r *redactor) text(s string) string {
	s = r.known.Replace(s)
	patterns := patterns()
	for i, f := range forms {
		if f.mark == "" {
			s = patterns[i].ReplaceAllString(s, f.by)
		} else if strings.Contains(s, f.mark) {
			var b strings.Builder
			for line := range strings.Lines(s) {
				if strings.Contains(line, f.mark) {
					line = patterns[i].ReplaceAllString(line, f.by)
				}
				b.WriteString(line)
			}
			s = b.String()
		}
	}
	return s
}

// document returns a document as JSON, without secrets. It removes them from each string, because
// text does not recognize a secret with escaped characters, and may remove half of an escape.
func document[T any](r *redactor, of *T) string {
	var tree any
	data, err := json.Marshal(of)
	if err == nil {
		numbers := json.NewDecoder(bytes.NewReader(data))
		numbers.UseNumber()
		err = numbers.Decode(&tree)
	}
	if err == nil {
		data, err = json.Marshal(r.strings(tree))
	}
	clean := new(T) // has the fields in their order
	if err == nil {
		err = json.Unmarshal(data, clean)
	}
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	_ = text.JSON(&b, clean)
	return b.String()
}

// strings removes the secrets from all strings of a JSON value.
func (r *redactor) strings(value any) any {
	switch v := value.(type) {
	case string:
		return r.text(v)
	case []any:
		for i := range v {
			v[i] = r.strings(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = r.strings(v[name])
		}
	}
	return value
}

// unit returns the directives of unit files, without comments and secrets.
func (r *redactor) unit(files []string, list []systemd.Directive) string {
	var b strings.Builder
	for _, file := range files {
		fmt.Fprintf(&b, "# %s\n", file)
		section := ""
		for _, d := range list {
			if d.File != file {
				continue
			}
			if d.Section != section {
				section = d.Section
				fmt.Fprintf(&b, "[%s]\n", section)
			}
			switch d.Key {
			case "Environment":
				d.Value = r.environment(d.Value)
			case "SetCredential", "SetCredentialEncrypted":
				name, _, _ := strings.Cut(d.Value, ":")
				d.Value = name + ":" + redacted
			}
			fmt.Fprintf(&b, "%s=%s\n", d.Key, d.Value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// environment removes the values of all variables from Environment=, except of those that are not
// secret.
func (r *redactor) environment(value string) string {
	words := splitWords(value)
	for i, word := range words {
		if name, _, ok := strings.Cut(word, "="); !ok || !r.plain[name] {
			words[i] = name + "=" + redacted
		} else if strings.ContainsAny(word, " \t") {
			words[i] = `"` + word + `"`
		}
	}
	return strings.Join(words, " ")
}

// splitWords splits a value at white space outside quotes (systemd.syntax(7)).
func splitWords(s string) (words []string) {
	var word strings.Builder
	var quote rune
	started, escaped := false, false
	for _, c := range s {
		switch {
		case escaped:
			escaped = false
			word.WriteRune(c)
		case c == '\\':
			escaped, started = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, started = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			started = true
			word.WriteRune(c)
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

package completion

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/packaging/generate/reference"
)

func tables() []*config.Table {
	return []*config.Table{clientmountd.Program().Table(), new(server.Configuration).Table()}
}

// save writes the script of a table to a file.
func save(t *testing.T, table *config.Table) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), table.Program)
	if err := os.WriteFile(path, []byte(Daemon(table, reference.ToolNames(table.Program))), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// complete returns the words that bash offers for the last word of a line.
func complete(t *testing.T, script, dir, line string) []string {
	t.Helper()
	program := filepath.Base(script)
	words := append([]string{program}, cut(line)...)
	cmd := exec.Command("bash", append([]string{"--norc", "-c", `
		source "$1" || exit 1
		f=$2; shift 2
		COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
		$f
		printf '%s\n' "${COMPREPLY[@]}"`, "bash", script, "_" + strings.ReplaceAll(program, "-", "_")}, words...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v %s", line, err, out)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	return got
}

// cut splits a line into words like bash, which splits at "=" as well.
func cut(line string) (words []string) {
	for word := range strings.SplitSeq(line, " ") {
		name, value, assigned := strings.Cut(word, "=")
		words = append(words, name)
		if assigned {
			words = append(words, "=")
		}
		if value != "" {
			words = append(words, value)
		}
	}
	return words
}

func TestInBash(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"config.toml", "certs/", "other"} {
		path := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	both := []struct{ line, want string }{
		{"conf", "config"},
		{"config ", "check default dump"},
		{"config d", "default dump"},
		{"config check --log-l", "--log-level"},
		{"config default ", ""},
		{"version ", ""},
		{"nonsense ", ""},
		{"--log-level ", "debug error info warn"},
		{"--log-level=", "debug error info warn"},
		{"--log-level=d", "debug"},
		{"-log-level w", "warn"},
		{"-log-f", "--log-format"},
		{"--log-level debug --log-f", "--log-format"},
		{"config dump --log-format j", "journal json"},
		{"--config c", "certs config.toml"},
		{"config check --config=con", "config.toml"},
		{"--kubernetes-qps ", ""},
		{"--kubernetes-service-host=", ""},
		{"--he", "--help"},
		{"--zap", ""},
	}
	own := map[string][]struct{ line, want string }{
		"clientmountd": {
			{"--orphans u", "unmount"}, {"--mode ", "kind mock real"}, {"--moc", "--mock"}, {"--mock=", "false true"},
			{"--runtime-directory ", "certs"}, {"--mock --orph", "--orphans"},
		},
		"nnf-dm": {{"--simulated=t", "true"}, {"--simulated --idle", "--idle-timeout"}, {"--socket o", "other"}},
	}
	for _, table := range tables() {
		script := save(t, table)
		for _, tt := range slices.Concat(both, own[table.Program]) {
			if got := complete(t, script, dir, tt.line); !slices.Equal(got, strings.Fields(tt.want)) {
				t.Errorf("%s %s: %q, want %q", table.Program, tt.line, got, tt.want)
			}
		}
	}
}

// For an empty line the script offers the commands, which the program accepts, and for a
// dash all flags of the help.
func TestOffersEverything(t *testing.T) {
	for _, table := range tables() {
		script := save(t, table)
		first := complete(t, script, t.TempDir(), "")
		if !slices.Contains(first, "config") || !slices.Contains(first, "version") {
			t.Errorf("%s: %q", table.Program, first)
		}
		var want []string
		for _, s := range table.Settings {
			if s.Flag != "" {
				want = append(want, "--"+s.Flag)
			}
		}
		got := complete(t, script, t.TempDir(), "-")
		for _, flag := range append(want, "--config", "--help") {
			if !slices.Contains(got, flag) {
				t.Errorf("%s does not offer %s", table.Program, flag)
			}
		}
	}
}

func TestSynopsis(t *testing.T) {
	table := &config.Table{Program: "thing", Synopsis: []config.Command{
		{Flags: true}, {Words: "config check", Flags: true}, {Words: "config default"}, {Words: "install", Flags: true}, {Words: "start|stop"}, {Words: "start", Option: "-x"},
	}}
	if got := strings.Join(words(table), " "); got != "config install start stop" {
		t.Errorf("%q", got)
	}
	got := commands(table)
	for _, want := range []string{"words='check default'", "check) words=$flags", "install) words=$flags"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if strings.Contains(got, "start") {
		t.Errorf("start takes no flags: %s", got)
	}
}

func TestLint(t *testing.T) {
	require.Tool(t, "shellcheck")
	for _, table := range tables() {
		if out, err := exec.Command("shellcheck", save(t, table)).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// Package upgrade tests that each build of the daemons continues with what another release has left
// on a node: records, history and configuration. The state of past releases is in testdata, one
// archive for each, written by the programs of that release. make fixture-release makes another one.
//
// It must not know the layout of the files, except for the numbers of mounts and devices.
package upgrade

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(fixture.Main(m)) }

// previous is the newest release in testdata.
const previous = "a7ce741"

// releases returns the archives of testdata, by commit.
func releases(t *testing.T) map[string]*release {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d archives, %v", len(files), err)
	}
	all := map[string]*release{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		commit := strings.TrimSuffix(filepath.Base(file), ".json")
		var old, r release
		if err = json.Unmarshal(text, &old); err == nil {
			// A test of this process may have a node with the same name.
			err = json.Unmarshal(bytes.ReplaceAll(text, []byte(old.Node), []byte("release-"+commit)), &r)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[commit] = &r
	}
	return all
}

// This build continues with the state of each release.
func TestUpgrade(t *testing.T) {
	for commit, r := range releases(t) {
		t.Run(commit, func(t *testing.T) {
			lives := strings.Count(r.Files["history.jsonl"], "\n")
			n := unpack(t, r)
			n.read(lab.TestBuild)
			// The lives of the release, and the ones that have ended now.
			text, err := os.ReadFile(filepath.Join(n.Runtime, "history.jsonl"))
			n.Must(err)
			if got, want := strings.Count(string(text), "\n"), lives+len(kept)+4; got != want {
				t.Errorf("the history has %d lives, want %d:\n%s", got, want, text)
			}
			program, err := lab.Binary("clientmountd")
			n.Must(err)
			out, err := exec.Command(program, "timeline", "--config=/dev/null", "--runtime-directory="+n.Runtime, "-o", "json").Output()
			n.Must(err)
			if got := strings.Count(string(out), `"ended":`); got != lives+len(kept)+4 {
				t.Errorf("the command timeline shows %d lives: %.2000s", got, out)
			}
		})
	}
}

// After a downgrade, the previous release continues with the state of this build.
func TestDowngrade(t *testing.T) {
	n := newNode(t, fixture.New(t))
	program, err := lab.Binary(lab.TestBuild)
	n.Must(err)
	n.write(program)
	// This build writes each field that a release has written, with the same type. This check does
	// not need the programs of the release.
	now := fields(t, n.files())
	for commit, r := range releases(t) {
		for name, kind := range fields(t, r.Files) {
			if now[name] != kind {
				t.Errorf("%s: %s was %s, is %s", commit, name, kind, cmp.Or(now[name], "missing"))
			}
		}
	}
	old, missing := build(t, previous, lab.TestBuild)
	if missing != "" { // this build continues with its own state
		old = program
	}
	n.read(old)
	if missing != "" {
		t.Skip("not read by the previous release: " + missing)
	}
}

// fields returns the types of all fields in the files, by path.
func fields(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	all := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				walk(path+"."+key, value)
			}
		case []any:
			for _, value := range v {
				walk(path+"[]", value)
			}
		default:
			all[path] = fmt.Sprintf("%T", v)
		}
	}
	for name, text := range files {
		for decoder := json.NewDecoder(strings.NewReader(text)); decoder.More(); {
			var v any
			if err := decoder.Decode(&v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if dir := filepath.Dir(name); dir != "." {
				name = dir
			}
			walk(name, v)
		}
	}
	return all
}

// refused8bd are settings of release 8bd1808 that this build refuses, with the error: see CHANGELOG.md.
var refused8bd = map[string]string{"roots = []\n": "mount.roots: the list is empty"}

// setting matches a setting that shows the default.
var setting = regexp.MustCompile(`(?m)^#([a-z_]+ = )`)

// This build accepts the configuration of each release: as it is installed, and with each setting at
// its old default.
func TestConfiguration(t *testing.T) {
	for commit, r := range releases(t) {
		for name, text := range r.Config {
			program, err := lab.Binary(filepath.Base(filepath.Dir(name)))
			if err != nil {
				t.Fatal(err)
			}
			check := func(text string) (string, error) {
				file := filepath.Join(t.TempDir(), "config.toml")
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(program, "config", "check", "--config="+file).CombinedOutput()
				return string(out), err
			}
			explicit := setting.ReplaceAllString(text, "$1")
			if explicit == text {
				t.Errorf("%s, %s has no settings", commit, name)
			}
			if commit == "8bd1808" {
				for line, want := range refused8bd {
					if strings.Contains(explicit, line) {
						if out, err := check(explicit); err == nil || !strings.Contains(out, want) {
							t.Errorf("%s, %s: %q: %v, %s; want %q", commit, name, line, err, out, want)
						}
						explicit = strings.ReplaceAll(explicit, line, "")
					}
				}
			}
			for what, text := range map[string]string{"installed": text, "explicit": explicit} {
				if out, err := check(text); err != nil {
					t.Errorf("%s, %s, %s: %v: %s", commit, name, what, err, out)
				}
			}
		}
	}
}

// build builds a program of a commit: nnf-dm, or the test build of clientmountd. The program is kept,
// because that takes up to a minute. missing is the reason if the tree has no sources of it.
func build(t *testing.T, commit, name string) (program, missing string) {
	t.Helper()
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(root, "bin", "releases", commit, name)
	if _, err := os.Stat(program); err == nil {
		return program, ""
	}
	git := func(args ...string) error {
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w: %s", args, err, out)
		}
		return nil
	}
	if err := git("cat-file", "-e", commit+"^{commit}"); err != nil {
		return "", fmt.Sprintf("the sources of release %s are not in this tree: %v", commit, err)
	}
	source := filepath.Join(t.TempDir(), "source")
	if err := git("clone", "--quiet", "--shared", "--no-checkout", root, source); err != nil {
		t.Fatal(err)
	}
	if err := git("-C", source, "checkout", "--quiet", "--detach", commit); err != nil {
		t.Fatal(err)
	}
	tags, command := "grpcnotrace", name
	if name == lab.TestBuild {
		tags, command = "failpoints", "clientmountd"
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", tags, "-o", program+".new",
		"-ldflags", "-X github.com/compute-daemons/compute-daemons/internal/version.Version=v0.0.0-"+commit, "./cmd/"+command)
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	return program, ""
}

// TestMake makes the archive of the release RELEASE, a commit. See make fixture-release.
func TestMake(t *testing.T) {
	commit := os.Getenv("RELEASE")
	if commit == "" {
		t.Skip("RELEASE is not set: make fixture-release")
	}
	program, missing := build(t, commit, lab.TestBuild)
	if missing != "" {
		t.Fatal(missing)
	}
	n := newNode(t, fixture.New(t))
	n.write(program)
	r := n.pack()
	r.Version, r.Commit, r.Made = version(t, program), commit, "make fixture-release REF="+commit
	r.Config = map[string]string{}
	for _, name := range []string{"etc/clientmountd/config.toml", "etc/nnf-dm/config.toml"} {
		out, err := exec.Command("git", "show", commit+":"+name).Output()
		n.Must(err)
		r.Config[name] = string(out)
	}
	text, err := json.MarshalIndent(r, "", " ")
	n.Must(err)
	n.Must(os.MkdirAll("testdata", 0o755))
	n.Must(os.WriteFile(filepath.Join("testdata", commit+".json"), append(text, '\n'), 0o644))
	n.read(program)
}

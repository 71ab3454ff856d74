package systemd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// installCalls are the calls of install without a package.
var installCalls = []string{`systemd-sysusers --inline u thing - "The Thing"`, "daemon-reload", "enable thing.service", "enable thing.socket"}

// Without the package, install writes and enables the units without starting them, a second
// install is refused, and remove deletes everything.
func TestInstallAndRemove(t *testing.T) {
	n := newNode(t)
	n.does("install --host=h --qps 5", 0, "Install"+ok+"/etc/systemd/system/thing.service: written\n/etc/systemd/system/thing.socket: written\n", "", installCalls...)
	for name, part := range map[string]string{"thing.service": "\nExecStart=/opt/bin/thing --host=h --qps 5\nUser=thing\n", "thing.socket": "\nListenStream=/run/thing.sock\n"} {
		path := filepath.Join(n.root, "etc/systemd/system", name)
		text, err := os.ReadFile(path)
		n.must(err)
		if info, _ := os.Stat(path); info.Mode() != 0o644 || !strings.Contains(string(text), part) || !strings.HasPrefix(string(text), "# Written by thing install.") {
			t.Errorf("%s has mode %v:\n%s", name, info.Mode(), text)
		}
	}
	want := []string{"multi-user.target.wants/thing.service", "old-thing.service", "sockets.target.wants/thing.socket", "thing.service", "thing.socket"}
	if have := n.files(); !slices.Equal(have, want) {
		t.Errorf("files %q, want %q", have, want)
	}
	n.does("install", 1, "", "Install"+failed+"Error:  Service has already been installed\n"+
		"thing: hint: /etc/systemd/system/thing.service exists: change it with a drop-in (systemctl edit thing), or run thing remove first\n")
	n.does("start", 0, "Starting"+ok, "", "start thing.service thing.socket")
	n.does("remove", 0, "Removing"+ok, "", "stop thing.service thing.socket", "disable thing.service", "disable thing.socket", "daemon-reload")
	if have := n.files(); len(have) > 0 {
		t.Errorf("left: %q", have)
	}
	n.does("remove", 1, "", "Removing"+failed+"Error:  Service is not installed\nthing: hint: /etc/systemd/system/thing.service does not exist, and no package provides one\n")
}

// With the package, install writes nothing and reports that arguments are ignored, and
// remove keeps the files of the package.
func TestInstallPackaged(t *testing.T) {
	n := newNode(t)
	n.write("usr/lib/systemd/system/thing.service", strings.Replace(serviceText, "[Install]", "[X-Install]", 1))
	n.write("usr/lib/systemd/system/thing.socket", socketText)
	const is = "/usr/lib/systemd/system/thing.service belongs to the package"
	n.does("install", 0, "Install"+ok+is+": enabled, no file written\n", "", "enable thing.socket")
	n.does("install --host=h", 0, "Install"+ok+is+": enabled, no file written\n"+
		"the arguments are ignored (--host=h): set them in the configuration file or in a drop-in (systemctl edit thing)\n", "", "enable thing.socket")
	if have := n.files(); !slices.Equal(have, []string{"sockets.target.wants/thing.socket"}) {
		t.Errorf("files %q", have)
	}
	n.does("remove", 0, "Removing"+ok+is+" and is kept: to delete it, remove the package\n", "", "disable thing.service", "disable thing.socket", "daemon-reload")
	if have := n.files(); len(have) > 0 {
		t.Errorf("left: %q", have)
	}
}

// A unit in /etc overrides that of the package: install and status report it with advice,
// and following the advice works.
func TestPackageIsOverridden(t *testing.T) {
	const own, overrides = "/etc/systemd/system/thing.service", "/etc/systemd/system/thing.service overrides the unit of the package; to use that unit, "
	const redo = overrides + "run thing remove, then thing install and thing start\n"
	for _, tt := range []struct{ text, advice string }{
		{olderText, redo},
		{"# Written by thing install. …\n" + serviceText, redo},
		{serviceText, overrides + "move your changes into a drop-in (systemctl edit thing.service), delete the file, then run systemctl daemon-reload and restart the service\n"},
	} {
		n := newNode(t)
		n.write("usr/lib/systemd/system/thing.service", serviceText)
		n.write("usr/lib/systemd/system/thing.socket", socketText)
		n.write(own, tt.text)
		n.does("install", 1, "", "Install"+failed+"Error:  Service has already been installed\nthing: hint: "+tt.advice)
		const units = "thing.service: inactive (dead), disabled\nthing.socket: inactive (dead), disabled\n"
		n.does("status", 0, "Service is stopped\n"+units+"Warning: "+tt.advice, "")
		if tt.advice != redo {
			continue
		}
		var out strings.Builder
		for _, verb := range []string{"remove", "install", "start", "status"} {
			if code := n.Do(t.Context(), verb, nil, nil, &out, &out); code != 0 {
				t.Errorf("%s: code %d", verb, code)
			}
		}
		if text := out.String(); strings.Contains(text, "overrides") || !strings.Contains(text, "pid  4711") {
			t.Error(text)
		}
	}

	n := newNode(t)
	n.write("usr/lib/systemd/system/thing.service", serviceText)
	n.must(os.MkdirAll(filepath.Join(n.root, "etc/systemd/system"), 0o755))
	n.must(os.Symlink("/dev/null", filepath.Join(n.root, own)))
	n.does("install", 1, "", "Install"+failed+"Error:  Service has already been installed\n"+
		"thing: hint: thing.service is masked and cannot be started; if this is not intended, run systemctl unmask thing.service\n")
	n.does("start", 1, "", "Starting"+failed+"thing: error: thing.service is masked\nthing: hint: if this is not intended, run systemctl unmask thing.service\n")
}

// During an image build, systemd is not running, and install uses only commands that work
// without it.
func TestInstallIntoImage(t *testing.T) {
	n := newNode(t)
	n.must(os.RemoveAll(filepath.Join(n.root, "run/systemd")))
	const written = "/etc/systemd/system/thing.service: written\n/etc/systemd/system/thing.socket: written\n"
	n.does("install", 0, "Install"+ok+written, "", installCalls[0], installCalls[2], installCalls[3])
	n.does("start", 1, "", "Starting"+failed+"thing: error: systemd is not running\nthing: hint: if the service is enabled, systemd starts it at the next boot\n")
	n.does("status", 1, "", "thing: error: systemd is not running\nthing: hint: if the service is enabled, systemd starts it at the next boot\n")
	n.does("remove", 0, "Removing"+ok, "", "disable thing.service", "disable thing.socket")
	n.does("stop", 1, "", "Stopping"+failed+"Error:  Service is not installed\n")
}

// An install that fails leaves nothing behind.
func TestInstallFails(t *testing.T) {
	for _, tt := range []struct{ verb, says string }{
		{"enable", "thing: error: systemctl enable: injected failure\n"},
		{"--inline", "thing: error: cannot create the user thing: systemd-sysusers --inline: injected failure\nthing: hint: create it as a system user without a shell\n"},
	} {
		n := newNode(t)
		n.must(n.systemd.Fail(tt.verb, true))
		calls := installCalls[:1]
		if tt.verb == "enable" {
			calls = []string{installCalls[0], installCalls[1], installCalls[2], "disable thing.service", "disable thing.socket", "daemon-reload"}
		}
		n.does("install", 1, "", "Install"+failed+tt.says, calls...)
		if have := n.files(); len(have) > 0 {
			t.Errorf("%s: left: %q", tt.verb, have)
		}
	}
	n := newNode(t)
	n.must(os.MkdirAll(filepath.Join(n.root, "etc"), 0o755))
	n.write("etc/systemd", "a file")
	n.does("install", 1, "", "Install"+failed+"thing: error: lstat /etc/systemd/system/thing.service: not a directory\n")
}

// Arguments that cannot be in a unit are refused before anything is written.
func TestInstallRefusesArguments(t *testing.T) {
	for _, arg := range []string{"a\nExecStartPre=/bin/false", "a\rb", "a\x00b", "\xff", "\x1b[31m"} {
		n := newNode(t)
		_, err := n.install(t.Context(), []string{arg})
		if err == nil || !strings.Contains(err.Error(), "a unit") || len(n.files()) > 0 || len(n.systemd.Log()) > 0 {
			t.Errorf("%q: %v, files %q", arg, err, n.files())
		}
	}
}

// create never replaces a file.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	for name, prepare := range map[string]func(string) error{
		"file":          func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"link":          func(path string) error { return os.Symlink("/dev/null", path) },
		"dangling link": func(path string) error { return os.Symlink(dir+"/nowhere", path) },
	} {
		path := filepath.Join(dir, name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if err := create(path, "text"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := create(filepath.Join(dir, "a/b"), "text"); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// olderText has the form of units that install of the older daemon wrote.
const olderText = `[Unit]
Description=The Thing

[Service]
PIDFile=/var/run/thing.pid
ExecStartPre=/bin/rm -f /var/run/thing.pid
ExecStart=/usr/bin/thing
Restart=on-failure

[Install]
WantedBy=multi-user.target
`

// remove deletes units that install or the older daemon wrote, and keeps and reports files
// of the administrator.
func TestRemoveKeepsOtherFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		gone bool
	}{
		"ours":    {"# Written by thing install.\n" + serviceText, true},
		"older":   {olderText, true},
		"manual":  {serviceText, false},
		"similar": {"[Service]\nPIDFile=/var/run/thing.pid\nExecStart=/usr/bin/thing\n", false},
	} {
		n := newNode(t)
		n.write("etc/systemd/system/thing.service", tt.text)
		n.write("etc/systemd/system/thing.service.d/override.conf", "[Service]\n")
		n.write("etc/systemd/system/thing.socket.d/mode.conf", "[Socket]\n")
		n.write("etc/systemd/system/thing-other.service", serviceText)
		want := []string{"thing-other.service", "thing.service.d/override.conf", "thing.socket.d/mode.conf"}
		stdout := "/etc/systemd/system/thing.service.d/override.conf is a local drop-in and is kept\n/etc/systemd/system/thing.socket.d/mode.conf is a local drop-in and is kept\n"
		if !tt.gone {
			want = slices.Insert(want, 1, "thing.service")
			stdout = "/etc/systemd/system/thing.service was not written by install and is kept\n" + stdout
		}
		n.does("remove", 0, "Removing"+ok+stdout, "", "disable thing.service", "daemon-reload")
		if have := n.files(); !slices.Equal(have, want) {
			t.Errorf("%s: files %q, want %q", name, have, want)
		}
	}
}

// A masked unit, a link to /dev/null, is kept.
func TestRemoveMasked(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.root, "etc/systemd/system/thing.service")
	n.must(os.MkdirAll(filepath.Dir(path), 0o755))
	n.must(os.Symlink("/dev/null", path))
	n.does("install", 1, "", "Install"+failed+"Error:  Service has already been installed\n"+
		"thing: hint: /etc/systemd/system/thing.service exists: change it with a drop-in (systemctl edit thing), or run thing remove first\n")
	n.does("remove", 0, "Removing"+ok+"/etc/systemd/system/thing.service was not written by install and is kept\n", "", "disable thing.service", "daemon-reload")
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// If the service cannot be stopped or disabled, its unit is kept, because systemd cannot
// manage a service without a unit.
func TestRemoveFails(t *testing.T) {
	for verb, calls := range map[string][]string{
		"stop":    {"stop thing.service thing.socket"},
		"disable": {"stop thing.service thing.socket", "disable thing.service"},
	} {
		n := newNode(t)
		n.does("install", 0, "Install"+ok+"/etc/systemd/system/thing.service: written\n/etc/systemd/system/thing.socket: written\n", "", installCalls...)
		n.does("start", 0, "Starting"+ok, "", "start thing.service thing.socket")
		n.must(n.systemd.Fail(verb, true))
		before := n.files()
		n.does("remove", 1, "", "Removing"+failed+"thing: error: systemctl "+verb+": injected failure\n", calls...)
		if have := n.files(); !slices.Equal(have, before) {
			t.Errorf("%s: files %q, were %q", verb, have, before)
		}
	}
}

// remove resets the failed state of a service.
func TestRemoveFailed(t *testing.T) {
	n := newNode(t)
	n.does("install", 0, "Install"+ok+"/etc/systemd/system/thing.service: written\n/etc/systemd/system/thing.socket: written\n", "", installCalls...)
	n.must(n.systemd.SetActive("thing.service", "failed"))
	n.does("remove", 0, "Removing"+ok, "", "reset-failed thing.service", "disable thing.service", "disable thing.socket", "daemon-reload")
}

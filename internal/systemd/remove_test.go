package systemd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// olderText is in the form that the older daemon's install wrote.
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

// What install wrote goes, also that of the older daemon; what the administrator
// wrote stays and is named.
func TestRemoveLeavesOthersFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		gone bool
	}{
		"ours":      {"# Written by thing install.\n" + serviceText, true},
		"older":     {olderText, true},
		"by hand":   {serviceText, false},
		"half-like": {"[Service]\nPIDFile=/var/run/thing.pid\nExecStart=/usr/bin/thing\n", false},
	} {
		n := newNode(t)
		n.write("etc/systemd/system/thing.service", tt.text)
		n.write("etc/systemd/system/thing.service.d/override.conf", "[Service]\n")
		n.write("etc/systemd/system/thing.socket.d/mode.conf", "[Socket]\n")
		n.write("etc/systemd/system/thing-other.service", serviceText)
		want := []string{"thing-other.service", "thing.service.d/override.conf", "thing.socket.d/mode.conf"}
		said := "/etc/systemd/system/thing.service.d/override.conf is yours and stays\n/etc/systemd/system/thing.socket.d/mode.conf is yours and stays\n"
		if !tt.gone {
			want = slices.Insert(want, 1, "thing.service")
			said = "/etc/systemd/system/thing.service was not written by install and stays\n" + said
		}
		n.does("remove", 0, "Removing"+ok+said, "", "disable thing.service", "daemon-reload")
		if have := n.files(); !slices.Equal(have, want) {
			t.Errorf("%s: files %q, want %q", name, have, want)
		}
	}
}

// A link to /dev/null is how a unit is masked: it stays.
func TestRemoveMasked(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.root, "etc/systemd/system/thing.service")
	n.must(os.MkdirAll(filepath.Dir(path), 0o755))
	n.must(os.Symlink("/dev/null", path))
	n.does("install", 1, "", "Install"+failed+"Error:  Service has already been installed\n"+
		"thing: hint: /etc/systemd/system/thing.service exists: change it with a drop-in (systemctl edit thing), or run thing remove first\n")
	n.does("remove", 0, "Removing"+ok+"/etc/systemd/system/thing.service was not written by install and stays\n", "", "disable thing.service", "daemon-reload")
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// While the service cannot be stopped or disabled its unit stays: systemd could
// not be asked about it any more.
func TestRemoveFails(t *testing.T) {
	for verb, calls := range map[string][]string{
		"stop":    {"stop thing.service thing.socket"},
		"disable": {"stop thing.service thing.socket", "disable thing.service"},
	} {
		n := newNode(t)
		n.does("install", 0, "Install"+ok+"/etc/systemd/system/thing.service: written\n/etc/systemd/system/thing.socket: written\n", "", asked...)
		n.does("start", 0, "Starting"+ok, "", "start thing.service thing.socket")
		n.must(n.systemd.Fail(verb, true))
		before := n.files()
		n.does("remove", 1, "", "Removing"+failed+"thing: error: systemctl "+verb+": told to fail\n", calls...)
		if have := n.files(); !slices.Equal(have, before) {
			t.Errorf("%s: files %q, were %q", verb, have, before)
		}
	}
}

// A service that has failed is forgotten with its unit.
func TestRemoveFailed(t *testing.T) {
	n := newNode(t)
	n.does("install", 0, "Install"+ok+"/etc/systemd/system/thing.service: written\n/etc/systemd/system/thing.socket: written\n", "", asked...)
	n.must(n.systemd.Be("thing.service", "failed"))
	n.does("remove", 0, "Removing"+ok, "", "reset-failed thing.service", "disable thing.service", "disable thing.socket", "daemon-reload")
}

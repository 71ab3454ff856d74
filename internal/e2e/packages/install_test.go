package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// everywhere plays a scene on each kind of machine.
func everywhere(t *testing.T, scene func(t *testing.T, m *machine, kind string)) {
	for _, kind := range []string{bare, chroot, running} {
		t.Run(kind, func(t *testing.T) { scene(t, newMachine(t, kind), kind) })
	}
}

func (b built) all(t *testing.T) (files []string) {
	for _, name := range names {
		files = append(files, b.rpmOf(t, name))
	}
	return files
}

// After an installation there is what is listed, and rpm -V finds nothing.
func TestInstall(t *testing.T) {
	b := must(t, first)
	everywhere(t, func(t *testing.T, m *machine, kind string) {
		m.change(append([]string{"-i"}, b.all(t)...)...)
		group := "0:990"
		if kind == bare { // nobody could make the group: root has what would be its
			group = "0:0"
		}
		owners := map[string]string{"root:root": "0:0", "root:nnf-dm": group}
		var want []string
		for _, name := range names {
			for _, e := range entries(t, name) {
				want = append(want, fmt.Sprintf("%s %s %s", e.path, e.mode, owners[e.owner]))
			}
		}
		if lines := difference(m.added(), want); lines != "" {
			t.Error(lines)
		}
		for _, name := range names {
			if out, err := m.tryRPM("-V", "--nodeps", name); (err != nil || out != "") && kind != bare {
				t.Errorf("rpm -V %s: %v\n%s", name, err, out)
			}
		}
	})
}

// An upgrade keeps an edited file, with the new one beside it, and takes the
// place of one that nobody edited. So does the way back.
func TestUpgradeKeepsEditedFiles(t *testing.T) {
	one, two := must(t, first), must(t, second)
	everywhere(t, func(t *testing.T, m *machine, kind string) {
		m.change(append([]string{"-i"}, one.all(t)...)...)
		const edited, untouched = "etc/clientmountd/config.toml", "etc/nnf-dm/config.toml"
		old := m.text(untouched)
		m.write(edited, "version = 1 # ours\n", 0o644)
		m.write("etc/clientmountd/service.token", "secret", 0o600)

		// rpm names what it puts beside an edited file; that is no noise.
		out := m.rpm(append([]string{"-U", "--nodeps"}, two.all(t)...)...)
		if kind != bare && out != "warning: /"+edited+" created as /"+edited+".rpmnew\n" {
			t.Errorf("rpm -U says %q", out)
		}
		if got := m.text(edited); got != "version = 1 # ours\n" {
			t.Errorf("the edited file is now %q", got)
		}
		if !strings.HasSuffix(m.text(edited+".rpmnew"), "# another default\n") {
			t.Error("the new default is not beside it")
		}
		if got := m.text(untouched); got != old+"# another default\n" {
			t.Error("the file that nobody edited is not the new one")
		}
		m.rpm(append([]string{"-U", "--oldpackage", "--nodeps"}, one.all(t)...)...)
		if m.text(edited) != "version = 1 # ours\n" || m.text(untouched) != old {
			t.Error("the way back lost something")
		}
		if m.text("etc/clientmountd/service.token") != "secret" {
			t.Error("the token was touched")
		}
		if got := strings.TrimSpace(m.rpm("-q", "nnf-dm")); got != "nnf-dm-0.1.0-1."+rpmArch() {
			t.Errorf("installed is %s", got)
		}
	})
}

// A removal leaves what the administrator made, and the user, to whom files may
// still belong.
func TestRemoveLeavesOnlyWhatWasEdited(t *testing.T) {
	b := must(t, first)
	everywhere(t, func(t *testing.T, m *machine, _ string) {
		m.change(append([]string{"-i"}, b.all(t)...)...)
		users := m.text("etc/passwd")
		m.write("etc/clientmountd/config.toml", "version = 1 # ours\n", 0o644)
		m.write("etc/clientmountd/service.token", "secret", 0o600)
		m.rpm(append([]string{"-e", "--nodeps"}, names...)...)
		var left []string
		for _, name := range m.added() {
			path, _, _ := strings.Cut(name, " ")
			left = append(left, path)
		}
		want := []string{"/etc/clientmountd", "/etc/clientmountd/config.toml.rpmsave", "/etc/clientmountd/service.token"}
		if !slices.Equal(left, want) {
			t.Errorf("left are %q, want %q", left, want)
		}
		if m.text("etc/passwd") != users {
			t.Error("the user has gone")
		}
	})
	t.Run("nothing edited", func(t *testing.T) {
		m := newMachine(t, bare)
		m.change(append([]string{"-i"}, b.all(t)...)...)
		m.change(append([]string{"-e"}, names...)...)
		if left := m.added(); len(left) != 0 {
			t.Errorf("left are %q", left)
		}
	})
}

// The older daemon's package goes, as its program has the same path.
func TestReplacesTheOlderPackage(t *testing.T) {
	b := must(t, first)
	m := newMachine(t, chroot)
	dir := t.TempDir()
	config := `{name: nnf-clientmount, arch: all, version: "9.9.9", release: "1", maintainer: m, description: d, license: l,
contents: [{src: ` + filepath.Join(dir, "old") + `, dst: /usr/bin/clientmountd, file_info: {mode: 0755}}]}`
	for name, text := range map[string]string{"old": "old", "nfpm.yaml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := command(nil, filepath.Join(root, "bin/nfpm"), "package", "-p", "rpm", "-f", filepath.Join(dir, "nfpm.yaml"), "-t", filepath.Join(dir, "old.rpm")); err != nil {
		t.Fatal(err)
	}
	m.change("-i", filepath.Join(dir, "old.rpm"))
	m.change("-U", b.rpmOf(t, "clientmountd"))
	if out := strings.TrimSpace(m.rpm("-qa")); out != "clientmountd-0.1.0-1."+rpmArch() {
		t.Errorf("installed are %q", out)
	}
	if m.text("usr/bin/clientmountd") == "old" {
		t.Error("the older program is still there")
	}
}

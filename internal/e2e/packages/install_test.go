package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// everywhere runs a test on each kind of machine.
func everywhere(t *testing.T, test func(t *testing.T, m *machine, kind string)) {
	for _, kind := range []string{bare, chroot, running} {
		t.Run(kind, func(t *testing.T) { test(t, newMachine(t, kind), kind) })
	}
}

func (b built) all(t *testing.T) (files []string) {
	for _, name := range names {
		files = append(files, b.rpmOf(t, name))
	}
	return files
}

// An installation creates the files listed in nfpm.yaml, and rpm -V finds no difference.
func TestInstall(t *testing.T) {
	b := must(t, first)
	everywhere(t, func(t *testing.T, m *machine, kind string) {
		m.change(append([]string{"-i"}, b.all(t)...)...)
		ids := map[string]string{"root": "0", "nnf-dm": "990"} // of users and groups
		if kind == bare {                                      // without tools no group is created, and rpm uses root's
			ids["nnf-dm"] = "0"
		}
		var want []string
		for _, name := range names {
			for _, c := range contents(t, name) {
				if c.Type != "ghost" { // the daemon creates it
					want = append(want, fmt.Sprintf("%s %04o %s:%s", c.Destination, c.FileInfo.Mode, ids[c.FileInfo.Owner], ids[c.FileInfo.Group]))
				}
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

// An upgrade keeps an edited file, writes the new one beside it, and replaces an unedited file. So
// does a downgrade.
func TestUpgradeKeepsEditedFiles(t *testing.T) {
	one, two := must(t, first), must(t, second)
	everywhere(t, func(t *testing.T, m *machine, kind string) {
		m.change(append([]string{"-i"}, one.all(t)...)...)
		const edited, untouched = "etc/clientmountd/config.toml", "etc/nnf-dm/config.toml"
		old := m.text(untouched)
		m.write(edited, "version = 1 # ours\n", 0o644)
		m.write("etc/clientmountd/service.token", "secret", 0o600)

		// rpm reports the file that it writes beside an edited one.
		out := m.rpm(append([]string{"-U", "--nodeps"}, two.all(t)...)...)
		if kind != bare && out != "warning: /"+edited+" created as /"+edited+".rpmnew\n" {
			t.Errorf("rpm -U prints %q", out)
		}
		if got := m.text(edited); got != "version = 1 # ours\n" {
			t.Errorf("the edited file is now %q", got)
		}
		if !strings.HasSuffix(m.text(edited+".rpmnew"), "# another default\n") {
			t.Error("the new file was not written beside it")
		}
		if got := m.text(untouched); got != old+"# another default\n" {
			t.Error("the unedited file was not replaced")
		}
		m.rpm(append([]string{"-U", "--oldpackage", "--nodeps"}, one.all(t)...)...)
		if m.text(edited) != "version = 1 # ours\n" || m.text(untouched) != old {
			t.Error("the downgrade has changed the edited file, or has not replaced the unedited one")
		}
		if m.text("etc/clientmountd/service.token") != "secret" {
			t.Error("the token has changed")
		}
		if got := strings.TrimSpace(m.rpm("-q", "nnf-dm")); got != "nnf-dm-0.1.0-1."+rpmArch() {
			t.Errorf("the installed package is %s", got)
		}
	})
}

// A removal keeps files that the administrator has created or edited, and the user, which may
// still own files.
func TestRemoveKeepsEditedFiles(t *testing.T) {
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
			t.Errorf("left behind: %q, want %q", left, want)
		}
		if m.text("etc/passwd") != users {
			t.Error("the user was removed")
		}
	})
	t.Run("nothing edited", func(t *testing.T) {
		m := newMachine(t, bare)
		m.change(append([]string{"-i"}, b.all(t)...)...)
		m.change(append([]string{"-e"}, names...)...)
		if left := m.added(); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// The package of the older daemon is removed, because its program has the same path.
func TestReplacesOlderPackage(t *testing.T) {
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
	if _, err := command(nil, packager, "--config", filepath.Join(dir, "nfpm.yaml"), "rpm", dir); err != nil {
		t.Fatal(err)
	}
	m.change("-i", filepath.Join(dir, "nnf-clientmount-9.9.9-1.noarch.rpm"))
	m.change("-U", b.rpmOf(t, "clientmountd"))
	if out := strings.TrimSpace(m.rpm("-qa")); out != "clientmountd-0.1.0-1."+rpmArch() {
		t.Errorf("the installed packages are %q", out)
	}
	if m.text("usr/bin/clientmountd") == "old" {
		t.Error("the older program was not replaced")
	}
}

// The scriptlets call these programs, and succeed although each of the fake programs fails and
// prints. Without a running systemd, they only create links and files. They never mount or
// unmount anything.
func TestScriptletsCall(t *testing.T) {
	one, two := must(t, first), must(t, second)
	const (
		catalog = "journalctl --update-catalog"
		reload  = "systemctl daemon-reload"
		tmp     = "systemd-tmpfiles --create "
		user    = "systemd-sysusers --replace=/usr/lib/sysusers.d/nnf-dm.conf -"
	)
	for _, test := range []struct {
		pkg, kind                string
		install, upgrade, remove []string
	}{
		{
			"clientmountd", chroot,
			[]string{"systemctl --no-reload preset clientmountd.service", tmp + "clientmountd.conf", catalog},
			[]string{tmp + "clientmountd.conf", catalog},
			[]string{"systemctl --no-reload disable clientmountd.service", catalog},
		}, {
			"clientmountd", running,
			[]string{"systemctl --no-reload preset clientmountd.service", tmp + "clientmountd.conf", catalog, reload, "systemd-modules-load clientmountd.conf"},
			[]string{tmp + "clientmountd.conf", catalog, reload, "systemd-modules-load clientmountd.conf", reload, "systemctl try-restart clientmountd.service"},
			[]string{"systemctl --no-reload disable clientmountd.service", "systemctl stop clientmountd.service", reload, catalog},
		}, {
			"nnf-dm", chroot,
			[]string{user, "systemctl --no-reload preset nnf-dm.socket", tmp + "nnf-dm.conf", catalog},
			[]string{user, tmp + "nnf-dm.conf", catalog},
			[]string{"systemctl --no-reload disable nnf-dm.timer nnf-dm.socket nnf-dm.service", catalog},
		}, {
			"nnf-dm", running,
			[]string{user, "systemctl --no-reload preset nnf-dm.socket", tmp + "nnf-dm.conf", catalog, reload},
			[]string{user, tmp + "nnf-dm.conf", catalog, reload, reload, "systemctl try-restart nnf-dm.service"},
			[]string{"systemctl --no-reload disable nnf-dm.timer nnf-dm.socket nnf-dm.service", "systemctl stop nnf-dm.timer nnf-dm.socket nnf-dm.service", reload, catalog},
		},
	} {
		t.Run(test.pkg+" "+test.kind, func(t *testing.T) {
			m := newMachine(t, test.kind)
			for _, step := range []struct {
				args []string
				want []string
			}{
				{[]string{"-i", one.rpmOf(t, test.pkg)}, test.install},
				{[]string{"-U", two.rpmOf(t, test.pkg)}, test.upgrade},
				{[]string{"-e", test.pkg}, test.remove},
			} {
				m.change(step.args...)
				if got := m.calls(); !slices.Equal(got, step.want) {
					t.Errorf("rpm %s calls\n%s\nwant\n%s", step.args[0], strings.Join(got, "\n"), strings.Join(step.want, "\n"))
				}
			}
		})
	}
}

package packages

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// machine is a directory for the installation of packages. It has a shell, and programs that only
// record their calls.
type machine struct {
	t     *testing.T
	root  string
	bare  []string // the files before the installation
	quiet bool     // packages must not print anything
}

// The kinds of machines.
const (
	bare    = "without any tool" // an image that gets its packages in any order
	chroot  = "chroot"           // an image that is built: tools, but systemd does not run
	running = "with systemd running"
)

func newMachine(t *testing.T, kind string) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), quiet: kind != bare}
	m.shell()
	m.null()
	m.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644)
	m.write("etc/group", "root:x:0:\n", 0o644)
	if kind != bare {
		for _, tool := range []string{"usr/bin/systemctl", "usr/bin/journalctl", "usr/bin/systemd-tmpfiles", "usr/bin/mount", "usr/bin/umount", "usr/lib/systemd/systemd-modules-load"} {
			m.write(tool, "#!/bin/sh\necho \""+filepath.Base(tool)+" $*\" >>/log\necho noise; echo noise >&2; exit 1\n", 0o755)
		}
		m.write("usr/bin/systemd-sysusers", `#!/bin/sh
echo "systemd-sysusers $*" >>/log
while read -r kind name _; do
  [ "$kind" = u ] || continue
  echo "$name:x:990:990::/:/sbin/nologin" >>/etc/passwd
  echo "$name:x:990:" >>/etc/group
done
`, 0o755)
	}
	if kind == running {
		m.write("run/systemd/system/x", "", 0o644)
	}
	m.rpm("--initdb")
	m.bare = m.names()
	return m
}

// shell copies the shell of this machine and its libraries.
func (m *machine) shell() {
	m.t.Helper()
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		m.t.Fatal(err)
	}
	libraries, err := command(nil, "ldd", sh)
	if err != nil {
		m.t.Fatal(err)
	}
	copies := map[string]string{"bin/sh": sh}
	for _, word := range strings.Fields(libraries) {
		if filepath.IsAbs(word) {
			copies[word] = word
		}
	}
	for to, from := range copies {
		text, err := os.ReadFile(from)
		if err != nil {
			m.t.Fatal(err)
		}
		m.write(to, string(text), 0o755)
	}
}

// null creates /dev/null.
func (m *machine) null() {
	m.t.Helper()
	dev := filepath.Join(m.root, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := syscall.Mknod(filepath.Join(dev, "null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) write(path, text string, mode os.FileMode) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) text(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		m.t.Error(err)
	}
	return string(text)
}

// rpm runs rpm on the machine, in a private mount namespace, and returns its output.
func (m *machine) rpm(args ...string) string {
	m.t.Helper()
	out, err := m.tryRPM(args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *machine) tryRPM(args ...string) (string, error) {
	all := []string{"--mount", "rpm", "--root", m.root, "--define", "_dbpath /var/lib/rpm", "--nosignature"}
	out, err := command([]string{"LC_ALL=C"}, "unshare", append(all, args...)...)
	return debian.ReplaceAllString(out, ""), err
}

// debian matches what Debian's rpm prints for every installation.
var debian = regexp.MustCompile(`rpm: (RPM should not be used directly|However assuming you know).*\n`)

// change installs or removes packages, and fails the test if rpm prints anything.
func (m *machine) change(args ...string) {
	m.t.Helper()
	if out := m.rpm(append(args, "--nodeps")...); out != "" && m.quiet {
		m.t.Errorf("rpm %s is not silent: %s", args[0], out)
	}
}

// calls returns the calls of programs since the last call.
func (m *machine) calls() []string {
	m.t.Helper()
	path := filepath.Join(m.root, "log")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	os.Remove(path)
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// names returns all paths except those of the rpm database, with mode and owner.
func (m *machine) names() (names []string) {
	m.t.Helper()
	err := filepath.WalkDir(m.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, m.root)
		if name == "/var/lib/rpm" || name == "/tmp" || name == "/log" {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		names = append(names, fmt.Sprintf("%s %04o %d:%d", name, info.Mode().Perm(), owner.Uid, owner.Gid))
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return names
}

// added returns the paths that were not on the machine initially, except for directories that the
// distribution owns on a real machine.
func (m *machine) added() (added []string) {
	m.t.Helper()
	all := m.names()
	for _, name := range all {
		path, _, _ := strings.Cut(name, " ")
		info, err := os.Lstat(filepath.Join(m.root, path))
		if err != nil {
			m.t.Fatal(err)
		}
		if !slices.Contains(m.bare, name) && (!info.IsDir() || !distribution[path]) {
			added = append(added, name)
		}
	}
	return added
}

// distribution has the directories that packages of the distribution own.
var distribution = map[string]bool{
	"/usr/lib/systemd": true, "/usr/lib/systemd/system": true, "/usr/lib/systemd/system-preset": true, "/usr/lib/systemd/catalog": true,
	"/usr/lib/modules-load.d": true, "/usr/lib/tmpfiles.d": true, "/usr/lib/sysusers.d": true,
	"/usr/share": true, "/usr/share/man": true, "/usr/share/man/man1": true, "/usr/share/man/man5": true, "/usr/share/man/man8": true,
	"/usr/share/bash-completion": true, "/usr/share/bash-completion/completions": true, "/usr/share/doc": true, "/usr/share/licenses": true,
	"/usr": true, "/usr/bin": true, "/usr/lib": true, "/var": true, "/var/lib": true, "/var/tmp": true,
}

// difference returns the entries that differ between two lists, one per line.
func difference(got, want []string) (lines string) {
	for _, g := range got {
		if !slices.Contains(want, g) {
			lines += "\n\tnot wanted: " + g
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			lines += "\n\tmissing:    " + w
		}
	}
	return lines
}

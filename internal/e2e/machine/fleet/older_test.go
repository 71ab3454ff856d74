package fleet

import (
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// A site goes on with the installer that it has: it installs, leaves alone,
// brings new credentials and new programs, and the daemons work.
func TestOlderInstaller(t *testing.T) {
	f := New(t, 2)
	n := f.Nodes[0]
	older, newer := f.Releases()
	olders := olders(f, older.Programs)
	running := func(f *Fleet) map[string]string {
		t.Helper()
		n := f.Nodes[0]
		found := map[string]string{}
		for _, o := range olders {
			n.Await(o.bin+" is active", "systemctl is-active "+o.bin)
			found[o.bin] = n.Process(o.bin)
			for _, part := range []string{"--service-token-file=/etc/" + o.name + "/service.token", o.args} {
				if !contains(found[o.bin], part) {
					t.Errorf("%s runs as %q, want %q in it", o.bin, found[o.bin], part)
				}
			}
		}
		return found
	}
	work := func(f *Fleet, name string) {
		t.Helper()
		// There is no such volume, and the daemon says so: it reads its objects and
		// writes their status.
		s := f.Nodes[0].World
		s.UseProfile(world.ProfileSpec{})
		s.Mount(name, world.MountSpec{Path: "/mnt/nnf/" + name, Type: "xfs"})
		s.AwaitError(name)
	}

	for _, o := range olders {
		if changed := o.install(f, n); len(changed) != 4 {
			t.Errorf("%s, the first time: %q changed", o.bin, changed)
		}
	}
	first := running(f)
	work(f, "first")
	if env := n.Do(`tr '\0' '\n' </proc/$(systemctl show --value -p MainPID clientmountd)/environ`) + "\n"; !contains(env, "GOGC=off\n") || !contains(env, "GOMAXPROCS=5\n") {
		t.Errorf("the environment of the drop-in is missing: %s", env)
	}

	t.Run("again", func(t *testing.T) {
		f := f.For(t)
		for _, o := range olders {
			if changed := o.install(f, f.Nodes[0]); len(changed) != 0 {
				t.Errorf("%s: %q changed", o.bin, changed)
			}
		}
		if now := running(f); now["clientmountd"] != first["clientmountd"] {
			t.Errorf("it runs as %q now, before as %q", now, first)
		}
	})
	// The installer only says start, which does nothing with a daemon that runs:
	// the daemon has to find the new token itself.
	t.Run("new credentials", func(t *testing.T) {
		f := f.For(t)
		f.rotate("clientmountd")
		if changed := olders[1].install(f, f.Nodes[0]); len(changed) != 1 || changed[0] != "service.token" {
			t.Errorf("%q changed, want the token", changed)
		}
		if now := running(f); now["clientmountd"] != first["clientmountd"] {
			t.Errorf("it runs as %q now, before as %q", now, first)
		}
		f.Nodes[0].Await("the new token is in the journal", "journalctl -b -u clientmountd -o cat | grep -i token")
		work(f, "rotated")
	})
	t.Run("new programs", func(t *testing.T) {
		f := f.For(t)
		for _, o := range olders {
			o.binary = filepath.Join(newer.Programs, o.bin)
			if changed := o.install(f, f.Nodes[0]); len(changed) != 1 || changed[0] != o.bin {
				t.Errorf("%q changed, want %s", changed, o.bin)
			}
			if r := f.SSH(f.Nodes[0], o.bin+" version"); !contains(r.Stdout, newer.Version) {
				t.Errorf("%s version: %+v", o.bin, r)
			}
		}
		now := running(f)
		for _, o := range olders {
			if now[o.bin] == first[o.bin] {
				t.Errorf("%s is still the old process %q", o.bin, now[o.bin])
			}
		}
		work(f, "updated")
	})
}

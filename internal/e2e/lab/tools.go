package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

const standinPackage = "github.com/compute-daemons/compute-daemons/internal/e2e/standin"

// Programs that are found by name, and mount helpers, which mount(8) looks for
// in /sbin and nowhere else.
var (
	playedTools   = []string{"lvs", "vgs", "lvchange", "vgchange", "nvme", "dlm_tool", "mount", "umount"}
	playedHelpers = []string{"mount.lustre", "mount.gfs2"}
)

// standin returns the stand-in program: read from LAB_STANDIN, or built once
// in the life of the process.
var standin = sync.OnceValues(func() ([]byte, error) {
	if path := os.Getenv("LAB_STANDIN"); path != "" {
		return os.ReadFile(path)
	}
	dir, err := os.MkdirTemp("", "lab-standin-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "standin")
	build := exec.Command("go", "build", "-trimpath", "-o", path, standinPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the stand-ins (or name a built one in LAB_STANDIN): %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// installTools puts the stand-ins into the laboratory's bin folder and, for
// daemons that set a PATH of their own, over the folder behind /sbin.
func (l *Lab) installTools() error {
	program, err := standin()
	if err != nil {
		return err
	}
	first := filepath.Join(l.Bin, "standin")
	if err := os.WriteFile(first, program, 0o755); err != nil {
		return err
	}
	helpers := playedHelpers
	if l.Features.UserNamespace {
		helpers = append(helpers[:len(helpers):len(helpers)], "mount.xfs")
	}
	for _, name := range append(playedTools[:len(playedTools):len(playedTools)], helpers...) {
		if err := os.Link(first, filepath.Join(l.Bin, name)); err != nil {
			return err
		}
		if name == "mount" || name == "umount" {
			continue // only by PATH: the real ones must stay reachable
		}
		if err := os.Symlink(filepath.Join(l.Bin, name), filepath.Join(l.path("sbin"), name)); err != nil {
			return err
		}
	}
	return l.coverSbin()
}

// coverSbin lays our folder over the real one, by an overlay where the kernel
// can, else by a memory file system with links to what was there.
func (l *Lab) coverSbin() error {
	real, err := filepath.EvalSymlinks("/sbin")
	if err != nil {
		return err
	}
	data := "lowerdir=" + l.path("sbin") + ":" + real
	overlay := l.mount("overlay", real, "overlay", unix.MS_RDONLY, data)
	if overlay == nil {
		return nil
	}
	old := l.path("sbin-host")
	if err := os.Mkdir(old, 0o755); err != nil {
		return err
	}
	if err := l.mount(real, old, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return errors.Join(overlay, err)
	}
	entries, err := os.ReadDir(old)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := os.Symlink(filepath.Join(old, e.Name()), filepath.Join(l.path("sbin"), e.Name()))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := l.mount(l.path("sbin"), real, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(overlay, err)
	}
	return nil
}

// Path returns the PATH with the stand-ins first.
func (l *Lab) Path() string { return l.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin" }

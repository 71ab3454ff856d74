package target

import (
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
)

// Diff finds what has to change on a node. It looks at nothing but its
// arguments. The error is a *Problem.
func Diff(w *Want, r *Report) (*Plan, error) {
	switch {
	case r.Systemd == "":
		return nil, problemf("nnf-deploy is for nodes that are up, not for images", "systemd does not run there")
	case r.Busy:
		return nil, problemf("wait for its end, then run it again", "another nnf-deploy is at work there")
	}
	d := &differ{w: w, r: r, p: new(Plan), units: map[string]bool{}}
	for _, step := range []func(*Daemon) error{d.packages, d.programs, d.unit, d.files, d.enable} {
		for i := range w.Daemons {
			if err := step(&w.Daemons[i]); err != nil {
				return nil, err
			}
		}
	}
	if r.Interrupted {
		d.p.note("an earlier run was interrupted here; what it left is cleared away")
	}
	if err := d.space(); err != nil {
		return nil, err
	}
	d.run()
	return d.p, nil
}

// differ is one comparison.
type differ struct {
	w     *Want
	r     *Report
	p     *Plan
	bare  int64           // bytes of programs without a package
	units map[string]bool // programs whose unit becomes another one
}

func (d *differ) packages(daemon *Daemon) error {
	if daemon.Bin == "" || len(d.w.Payload.Packages) == 0 {
		return nil
	}
	i := slices.IndexFunc(d.w.Payload.Packages, func(p payload.Package) bool {
		return p.Name == daemon.Bin && (p.Arch == d.r.Arch || p.Arch == "noarch")
	})
	if i < 0 {
		return d.wrongArch(daemon.Bin)
	}
	p := &d.w.Payload.Packages[i]
	have, there := d.r.Packages[p.Name]
	same := there && have.NEVRA == p.NEVRA && have.Header == p.Header
	if same && !d.w.Force {
		return nil
	}
	switch owner := d.r.Owners["/usr/bin/"+daemon.Bin]; {
	case there:
		d.p.change("replace", p.NEVRA, have.NEVRA)
	case owner != "":
		d.p.change("replace", p.NEVRA, owner)
	default:
		d.p.change("install", p.NEVRA, "")
	}
	name := d.p.carry(member{name: ".rpm", sum: p.Sum, path: p.Path, size: p.Size}) // dnf takes no file without it
	d.p.step("package", name, p.Name)
	d.p.restart(daemon.Bin)
	d.units[daemon.Bin] = true
	return nil
}

func (d *differ) wrongArch(bin string) error {
	return problemf("give one that is built for it", "what is given of %s is for %s, and the node is %s", bin, strings.Join(d.w.Payload.Arches(bin), ", "), d.r.Arch)
}

func (d *differ) programs(daemon *Daemon) error {
	if daemon.Bin == "" || len(d.w.Payload.Packages) > 0 {
		return nil
	}
	path := "/usr/bin/" + daemon.Bin
	if len(d.w.Payload.Programs) == 0 {
		if d.r.Files[path].State == "absent" {
			return problemf("give it with --rpm or --binary-dir", "%s is not installed there", daemon.Bin)
		}
		return nil
	}
	if owner := d.r.Owners[path]; owner != "" {
		return problemf("give packages (--rpm), or remove that one first", "%s belongs to the package %s there", path, owner)
	}
	found := false
	for i := range d.w.Payload.Programs {
		p := &d.w.Payload.Programs[i]
		if p.Arch != d.r.Arch || companion(p.Name) != daemon.Bin {
			continue
		}
		found = found || p.Name == daemon.Bin
		f := file{path: "/usr/bin/" + p.Name, mode: "0755", owner: "root:root", program: p, bin: daemon.Bin}
		if d.place(&f, "binary") {
			d.bare += p.Size
			if p.Name == daemon.Bin {
				d.units[daemon.Bin] = true
			}
		}
	}
	if !found {
		return d.wrongArch(daemon.Bin)
	}
	return nil
}

// companion is the daemon with which a program comes.
func companion(program string) string {
	if program == "nnf-dmctl" {
		return "nnf-dm"
	}
	return program
}

// place compares one file, and reports whether it becomes another one.
func (d *differ) place(f *file, what string) bool {
	have, asked := d.r.Files[f.path]
	if !asked {
		have.State = "absent"
	}
	verb := "replace"
	switch {
	case have.State == f.sum() && !d.w.Force:
		if "0"+have.Mode == f.mode && have.Owner == f.owner {
			return false
		}
		verb = "permissions"
	case have.State == "absent":
		verb = "write"
	}
	d.p.change(verb, f.path, "")
	m := member{sum: f.sum(), data: f.content, size: f.size()}
	if f.program != nil {
		m.path = f.program.Path
	}
	d.p.step(what, d.p.carry(m), f.mode, f.owner, f.path)
	if f.bin != "" && f.path != "/usr/bin/nnf-dmctl" && verb != "permissions" {
		d.p.restart(f.bin)
	}
	return true
}

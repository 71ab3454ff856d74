package host

import (
	"maps"
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

// unit deals with what lies in the way of the unit that is wanted.
func (d *differ) unit(daemon *Daemon) error {
	bin := daemon.Bin
	if bin == "" {
		return nil
	}
	packaged := len(d.w.Payload.Packages) > 0 || len(d.w.Payload.Programs) == 0 && d.r.Packaged[bin]
	bare := len(d.w.Payload.Programs) > 0 && !d.r.Packaged[bin]
	path := "/etc/systemd/system/" + bin + ".service"
	text, there := d.r.Contents[path]
	whose := unitOwner(bin, text)
	switch {
	case there && whose == installer && (packaged || bare):
		d.p.change("retire", path, "")
		d.p.step("retire", path)
		d.unitChanges(bin)
	case there && whose == own && packaged:
		for _, p := range []string{path, "/etc/systemd/system/" + bin + ".socket"} {
			d.p.step("remove", p)
		}
		d.p.change("remove", path, "it hides the package's")
		d.unitChanges(bin)
	case there && whose == foreign:
		d.p.note("%s is yours and stays: it hides the unit that belongs to this version", path)
		bare = false
	}
	if bare && (d.units[bin] || !there) {
		if !there {
			d.p.change("write", path, "")
		}
		d.p.step("unit", bin)
		d.unitChanges(bin)
	}
	for _, path := range slices.Sorted(maps.Keys(d.r.Contents)) {
		if !strings.HasPrefix(path, "/etc/systemd/system/"+bin+".service.d/") {
			continue
		}
		text := d.r.Contents[path]
		switch dropInOwner(bin, path, text) {
		case installer:
			d.p.change("retire", path, "")
			d.p.step("retire", path)
			d.unitChanges(bin)
			if now, _ := credentials(daemon.Name); tokenFile(text) != now {
				d.p.note("%s is not used any more, and still opens the API server to who can read it: remove it", tokenFile(text))
			}
		case foreign:
			if replacesCommand(text) && path > dropIn(bin) {
				d.p.note("%s is yours and stays: its command wins over what nnf-deploy sets", path)
			}
		case ours:
			if want, _ := daemon.dropIn(); want == "" {
				d.p.change("remove", path, "")
				d.p.step("remove", path)
				d.unitChanges(bin)
			}
		}
	}
	return nil
}

func (d *differ) unitChanges(bin string) {
	d.units[bin] = true
	d.p.restart(bin)
}

func (d *differ) files(daemon *Daemon) error {
	list, err := d.w.files(daemon)
	if err != nil {
		return problemf("", "%v", err)
	}
	t := traits[daemon.Bin]
	if daemon.Bin != "" {
		for _, path := range folders(daemon.Bin) {
			d.p.step("folder", t.folder, "root:"+t.group, path)
			if have := d.r.Files[path]; have.State == "folder" && ("0"+have.Mode != t.folder || have.Owner != "root:"+t.group) {
				d.p.change("permissions", path, "")
			}
		}
	}
	if daemon.Name != daemon.Bin && len(daemon.Token) > 0 {
		d.p.step("newfolder", t.folder, "root:"+t.group, "/etc/"+daemon.Name) // it may be somebody else's
	}
	for i := range list {
		if d.place(&list[i], "file") && list[i].path == dropIn(daemon.Bin) {
			d.units[daemon.Bin] = true
		}
	}
	return nil
}

func (d *differ) enable(daemon *Daemon) error {
	t := traits[daemon.Bin]
	if t.enabled == "" {
		return nil
	}
	u, service := d.r.Units[t.enabled], d.r.Units[daemon.Bin+".service"]
	if u.Load == "masked" || service.Load == "masked" {
		return problemf("systemctl unmask "+t.enabled, "%s is masked there", t.enabled)
	}
	if d.units[daemon.Bin] || u.File != "enabled" {
		d.p.step("reload")
		d.p.step("enable", t.enabled)
	}
	if u.File != "enabled" {
		d.p.change("enable", t.enabled, "")
	}
	switch {
	case u.Active != "active":
		if !works(u) {
			d.p.change("start", t.enabled, "")
		}
		d.p.restart(daemon.Bin)
	case service.Active == "failed":
		d.p.change("start", daemon.Bin+".service", "")
		d.p.restart(daemon.Bin)
	case slices.Contains(d.r.Pending, daemon.Bin):
		if !works(service) {
			d.p.change("start", daemon.Bin+".service", "")
		}
		d.p.restart(daemon.Bin)
	}
	return nil
}

// run adds what makes the new files work.
func (d *differ) run() {
	for _, bin := range d.p.bins {
		t := traits[bin]
		if t.enabled == "nnf-dm.socket" && d.r.Units[t.enabled].Active != "active" {
			d.p.step("start", t.enabled)
		}
		if works(d.r.Units[bin+".service"]) {
			d.p.change("restart", bin+".service", "")
		}
		d.p.step("ready", bin+".service", seconds(d.w.Ready))
	}
}

// works is true for a unit that a restart interrupts.
func works(u Unit) bool { return u.Active != "" && u.Active != "inactive" && u.Active != "failed" }

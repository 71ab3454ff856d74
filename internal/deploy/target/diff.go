package target

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Diff plans the changes that bring a node with this report into the wanted state. It depends
// only on its arguments. The error is a *Problem.
func Diff(w *Want, r *Report) (*Plan, error) {
	if err := r.usable(); err != nil {
		return nil, err
	}
	d := &differ{w: w, r: r, p: new(Plan), units: map[string]bool{}, programs: map[string]bool{}}
	for _, step := range []func(*Daemon) error{d.packages, d.binaries, d.renewal, d.unit, d.files, d.enable} {
		for i := range w.Daemons {
			if err := step(&w.Daemons[i]); err != nil {
				return nil, err
			}
		}
	}
	d.leftovers()
	if r.Interrupted {
		d.p.note("an earlier run was interrupted; its leftovers are removed")
	}
	if err := d.space(); err != nil {
		return nil, err
	}
	d.run()
	for i := range w.Daemons {
		d.timer(&w.Daemons[i])
	}
	for i := range w.Daemons {
		d.stored(&w.Daemons[i])
	}
	return d.p, nil
}

// usable returns an error if the node cannot be changed now.
func (r *Report) usable() error {
	switch {
	case r.Systemd == "":
		return problemf("nnf-deploy installs on running nodes, not in images", "systemd does not run on the node")
	case r.Busy:
		return problemf("wait until it has finished, then run the command again", "another nnf-deploy is changing this node")
	}
	return nil
}

// leftovers plans a run that removes what an interrupted one has left, even if nothing else changes.
func (d *differ) leftovers() {
	if d.r.Leftovers {
		d.p.change("remove", product.StateDirectory+"/stage", "an earlier run was interrupted")
	}
}

// differ is one comparison.
type differ struct {
	w     *Want
	r     *Report
	p     *Plan
	bare  int64           // size in bytes of programs without a package
	units map[string]bool // daemons with a changed unit

	programs map[string]bool // daemons whose program is replaced
	checked  []string        // those of them that must be able to renew their token
}

func notInstalled(bin string) *Problem {
	return problemf("add --rpm or --binary-dir", "%s is not installed on the node", bin)
}

// packages plans the changes of the package of a daemon.
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
	switch owner := d.r.Owners[product.Path(daemon.Bin)]; {
	case there:
		d.p.change("replace", p.NEVRA, "is "+have.NEVRA)
	case owner != "":
		d.p.change("replace", p.NEVRA, "is "+owner)
	default:
		d.p.change("install", p.NEVRA, "")
	}
	name := d.p.addMember(member{name: ".rpm", sum: p.Sum, path: p.Path, size: p.Size}) // dnf requires this suffix
	d.p.step("package", name, p.Name)
	d.p.restart(daemon.Bin)
	d.units[daemon.Bin], d.programs[daemon.Bin] = true, true
	return nil
}

func (d *differ) wrongArch(bin string) error {
	return problemf("give a build for this architecture", "the given %s is for %s, but the node is %s", bin, strings.Join(d.w.Payload.Arches(bin), ", "), d.r.Arch)
}

// binaries plans the changes of the programs of a daemon that are not in a package.
func (d *differ) binaries(daemon *Daemon) error {
	if daemon.Bin == "" || len(d.w.Payload.Packages) > 0 {
		return nil
	}
	path := product.Path(daemon.Bin)
	if len(d.w.Payload.Programs) == 0 {
		if d.r.Files[path].State == "absent" {
			return notInstalled(daemon.Bin)
		}
		return nil
	}
	if owner := d.r.Owners[path]; owner != "" {
		return problemf("install packages (--rpm), or remove that package first", "%s belongs to the package %s on the node", path, owner)
	}
	found, names := false, daemon.product().Programs()
	for i := range d.w.Payload.Programs {
		p := &d.w.Payload.Programs[i]
		if p.Arch != d.r.Arch || !slices.Contains(names, p.Name) {
			continue
		}
		f := file{path: product.Path(p.Name), mode: "0755", owner: "root:root", program: p}
		if p.Name == daemon.Bin {
			found, f.bin = true, p.Name
		}
		if d.place(&f, "binary") {
			d.bare += p.Size
			if p.Name == daemon.Bin {
				d.units[daemon.Bin], d.programs[daemon.Bin] = true, true
			}
		}
	}
	if !found {
		return d.wrongArch(daemon.Bin)
	}
	return nil
}

// place plans the change of one file, and reports whether it changes. step is the verb of
// the manifest.
func (d *differ) place(f *file, step string) bool {
	have, reported := d.r.Files[f.path]
	if !reported {
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
	d.p.change(verb, f.path, f.why)
	m := member{sum: f.sum(), data: f.content, size: f.size()}
	if f.program != nil {
		m.path = f.program.Path
	}
	d.p.step(step, d.p.addMember(m), f.mode, f.owner, f.path)
	if f.bin != "" && verb != "permissions" {
		d.p.restart(f.bin)
	}
	return true
}

// unit plans the changes of the unit of a daemon. Units that hide the wanted one are removed
// or renamed, unless they belong to the administrator.
func (d *differ) unit(daemon *Daemon) error {
	bin := daemon.Bin
	if bin == "" {
		return nil
	}
	packaged := len(d.w.Payload.Packages) > 0 || len(d.w.Payload.Programs) == 0 && d.r.Packaged[bin]
	bare := len(d.w.Payload.Programs) > 0 && !d.r.Packaged[bin]
	p := daemon.product()
	path, socket := p.OwnUnits()
	text, there := d.r.Contents[path]
	author := unitOwner(bin, text)
	switch {
	case there && author == ownerInstaller && (packaged || bare):
		d.p.change("retire", path, "")
		d.p.step("retire", path)
		d.unitChanges(bin)
	case there && author == ownerProgram && packaged:
		d.p.step("remove", path)
		d.p.step("remove", socket)
		d.p.change("remove", path, "it hides the unit of the package")
		d.unitChanges(bin)
	case there && author == ownerAdministrator:
		d.p.note("%s is your own file and is kept: it hides the unit of this version", path)
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
		if !strings.HasPrefix(path, p.DropIns()+"/") {
			continue
		}
		text := d.r.Contents[path]
		switch dropInOwner(&p, path, text) {
		case ownerInstaller:
			d.p.change("retire", path, "")
			d.p.step("retire", path)
			d.unitChanges(bin)
			if now, _ := product.Credentials(daemon.Name); tokenFile(text) != now {
				d.p.note("%s is no longer used, but whoever can read it can still use its token: remove it", tokenFile(text))
			}
		case ownerAdministrator:
			if replacesCommand(text) && path > p.DropIn() {
				d.p.note("%s is your own file and is kept: its ExecStart overrides that of nnf-deploy", path)
			}
		case ownerDeploy:
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

// files plans the changes of the credentials and settings of a daemon.
func (d *differ) files(daemon *Daemon) error {
	list, err := d.w.files(daemon)
	if err != nil {
		return problemf("", "%v", err)
	}
	p := daemon.product()
	if daemon.Bin != "" {
		for _, path := range p.ConfigDirectories() {
			d.p.step("directory", p.DirectoryMode, p.Owner, path)
			if have := d.r.Files[path]; have.State == "directory" && ("0"+have.Mode != p.DirectoryMode || have.Owner != p.Owner) {
				d.p.change("permissions", path, "")
			}
		}
		d.directory(daemon)
	}
	if daemon.Name != daemon.Bin && daemon.credentials() {
		d.p.step("newdirectory", p.DirectoryMode, p.Owner, product.Directory(daemon.Name)) // an existing one may belong to other software
	}
	for i := range list {
		if d.place(&list[i], "file") && list[i].path == p.DropIn() {
			d.units[daemon.Bin] = true
		}
	}
	return nil
}

// enable plans the steps after which systemd runs the daemon, now and at boot.
func (d *differ) enable(daemon *Daemon) error {
	if daemon.Bin == "" {
		return nil
	}
	p := daemon.product()
	u, service := d.r.Units[p.Enabled()], d.r.Units[p.Service()]
	if u.Load == "masked" || service.Load == "masked" {
		return problemf("run systemctl unmask "+p.Enabled()+" on the node", "%s is masked on the node", p.Enabled())
	}
	if d.units[p.Name] || u.File != "enabled" {
		d.p.step("reload")
		d.p.step("enable", p.Enabled())
	}
	if u.File != "enabled" {
		d.p.change("enable", p.Enabled(), "")
	}
	switch {
	case u.Active != "active":
		if !running(u) {
			d.p.change("start", p.Enabled(), "")
		}
		d.p.restart(p.Name)
	case service.Active == "failed":
		d.p.change("start", p.Service(), "")
		d.p.restart(p.Name)
	case slices.Contains(d.r.Pending, p.Name):
		if !running(service) {
			d.p.change("start", p.Service(), "")
		}
		d.p.restart(p.Name)
	}
	return nil
}

// run adds the restarts to the plan.
func (d *differ) run() {
	for _, bin := range d.checked {
		d.p.step("renews", bin)
	}
	for _, bin := range d.p.bins {
		p, _ := product.Of(bin)
		if p.SocketActivated && d.r.Units[p.Socket()].Active != "active" {
			d.p.step("start", p.Socket())
		}
		if running(d.r.Units[p.Service()]) {
			d.p.change("restart", p.Service(), "")
		}
		d.p.step(append([]string{"ready", p.Service(), seconds(d.w.Ready)}, p.Clients...)...)
	}
}

// running reports whether the unit runs, so that a restart interrupts it.
func running(u Unit) bool { return u.Active != "" && u.Active != "inactive" && u.Active != "failed" }

// spare is the free space in KiB that must remain on a file system.
const spare = 1024

// space returns an error if a file system has too little space for the plan.
func (d *differ) space() error {
	staging, bare := d.p.Bytes()/1024, d.bare/1024
	if d.p.Empty() {
		return nil
	}
	for _, need := range []struct {
		dir string
		kib int64
	}{{product.StateDirectory, staging}, {product.BinDirectory, bare}, {product.ConfigDirectory, 0}} {
		free, known := d.r.Space[need.dir]
		if !known {
			continue
		}
		if need.dir == product.BinDirectory && free == d.r.Space[product.StateDirectory] {
			need.kib += staging // probably the same file system
		}
		if free < need.kib+spare {
			return problemf("free space there, or move the directory to another file system", "the file system of %s is full: %s free, %s needed", need.dir, size(free), size(need.kib+spare))
		}
	}
	return nil
}

func size(kib int64) string { return strconv.FormatFloat(float64(kib)/1024, 'f', 1, 64) + " MiB" }

func seconds(d time.Duration) string {
	if d <= 0 {
		d = time.Minute
	}
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

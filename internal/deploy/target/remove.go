package target

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Remove plans that daemons are stopped, and that packages, programs and everything
// that nnf-deploy has brought are removed. It never touches mounts. If clientmountd has
// mounts in place, force is needed, because they would never be unmounted.
func Remove(w *Want, r *Report, force bool) (*Plan, error) {
	if err := r.usable(); err != nil {
		return nil, err
	}
	d := &differ{w: w, r: r, p: new(Plan)}
	for i := range w.Daemons {
		if err := d.remove(&w.Daemons[i], force); err != nil {
			return nil, err
		}
	}
	if r.Forgotten && d.p.Empty() {
		d.p.change("remove", product.StateDirectory, "")
	}
	d.p.step("reload")
	d.p.step("forget")
	return d.p, nil
}

func (d *differ) remove(daemon *Daemon, force bool) error {
	bin, p := daemon.Bin, daemon.product()
	if why, hint := d.r.mounts(bin).inTheWay(); why != "" {
		if !force {
			return problemf(hint, "%s", why)
		}
		d.p.note("%s; mounts stay", why)
	}
	if bin != "" {
		d.removeProgram(&p)
		d.p.step("unkeep", bin)
	}
	for _, path := range daemon.paths() {
		if have := d.r.Files[path]; have.State != "absent" && have.State != "" && !strings.HasPrefix(path, product.BinDirectory+"/") {
			d.p.change("remove", path, "")
			d.p.step("drop", path)
		}
	}
	d.p.step("rmdir", product.Directory(daemon.Name))
	if bin == "" {
		return nil
	}
	unit, _ := p.OwnUnits()
	for _, path := range []string{unit, p.OlderDropIn()} {
		d.p.step("drop", path+".retired-by-nnf-deploy")
	}
	for _, path := range slices.Backward(append([]string{p.DropIns()}, p.ConfigDirectories()...)) {
		d.p.step("rmdir", path)
	}
	return nil
}

// inTheWay returns why clientmountd must not be removed: no daemon would unmount its
// mounts. "": nothing is mounted.
func (m *Mounts) inTheWay() (why, hint string) {
	const look = "look there with findmnt; --force removes it all the same: mounts stay, and no daemon unmounts them"
	switch {
	case m == nil:
		return "", ""
	case m.Unknown != "":
		return "it is not known whether clientmountd has mounts in place there: " + m.Unknown, "install the present version first, or " + look
	case m.Count > 0:
		return fmt.Sprintf("clientmountd has mounts in place there, for %d ClientMounts", m.Count), "wait for the jobs, or take --force: mounts stay, and no daemon unmounts them"
	case m.Unreadable > 0:
		return fmt.Sprintf("%d records of clientmountd cannot be read there, so something may be mounted", m.Unreadable), look
	}
	return "", ""
}

// removeProgram plans the end of the daemon, its units, and its package or programs.
func (d *differ) removeProgram(p *product.Daemon) {
	for _, unit := range slices.Backward(p.Units()) { // the socket first, which would start the service again
		if u, known := d.r.Units[unit]; known && u.Load != "not-found" && u.Active != "inactive" {
			d.p.change("stop", unit, "")
			d.p.step("stop", unit)
		}
	}
	unit, socket := p.OwnUnits()
	text, there := d.r.Contents[unit]
	whose := unitOwner(p.Name, text)
	if there && whose == foreign {
		d.p.note("%s is yours and stays", unit)
	}
	if have, installed := d.r.Packages[p.Name]; installed {
		d.p.change("remove", have.NEVRA, "")
		d.p.step("erase", p.Name)
		return
	}
	if owner := d.r.Owners[product.Path(p.Name)]; owner != "" {
		d.p.note("%s belongs to %s and stays", product.Path(p.Name), owner)
		return
	}
	if there && (whose == own || whose == installer) {
		d.p.change("remove", unit, "")
		d.p.step("unmake", p.Name)
		d.p.step("drop", unit)
		d.p.step("drop", socket)
	}
	if there && whose == foreign {
		return // the unit that stays needs them
	}
	for _, program := range p.Programs() {
		path := product.Path(program)
		if have := d.r.Files[path].State; have != "absent" && have != "" {
			d.p.change("remove", path, "")
			d.p.step("drop", path)
		}
	}
}

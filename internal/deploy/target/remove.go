package target

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Remove plans the removal of daemons: it stops them, and removes packages, programs and
// everything that nnf-deploy has installed. It never touches mounts. If clientmountd has
// mounts in place, force is required, because no daemon would unmount them.
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
	d.leftovers()
	if r.Unconfirmed && d.p.Empty() {
		d.p.change("remove", product.StateDirectory, "")
	}
	d.p.step("reload")
	d.p.step("forget")
	return d.p, nil
}

func (d *differ) remove(daemon *Daemon, force bool) error {
	bin, p := daemon.Bin, daemon.product()
	if why, hint := d.r.mounts(bin).blockRemoval(); why != "" {
		if !force {
			return problemf(hint, "%s", why)
		}
		d.p.note("%s; mounts stay", why)
	}
	if bin != "" {
		d.removeProgram(&p)
		d.p.step("discard", bin)
	}
	if bin != "" {
		d.unstore(daemon) // after the daemon was stopped, which can store one at any time
		d.p.step("rmdir", p.RenewalDirectory())
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
	if p.Timer() != "" {
		d.removeTimer(&p, "drop")
	}
	unit, _ := p.OwnUnits()
	for _, path := range []string{unit, p.OlderDropIn()} {
		d.p.step("drop", path+".retired-by-nnf-deploy")
	}
	directories := append([]string{p.DropIns()}, p.ConfigDirectories()...)
	if p.Timer() != "" {
		directories = append(directories, p.TimerDropIns())
	}
	for _, path := range slices.Backward(directories) {
		d.p.step("rmdir", path)
	}
	return nil
}

// blockRemoval returns why clientmountd must not be removed, with a hint, or "" if nothing is
// mounted: no daemon would unmount its mounts.
func (m *Mounts) blockRemoval() (why, hint string) {
	const check = "check with findmnt on the node; --force removes the daemon anyway, and its mounts stay until you unmount them"
	switch {
	case m == nil:
		return "", ""
	case m.Unknown != "":
		return "cannot determine whether clientmountd has mounts in place: " + m.Unknown, "install the current version first, or " + check
	case m.Count > 0:
		return fmt.Sprintf("clientmountd has mounts in place for %d ClientMounts", m.Count), "wait until the jobs have ended; --force removes the daemon anyway, and its mounts stay until you unmount them"
	case m.Unreadable > 0:
		return fmt.Sprintf("%d records of clientmountd cannot be read, so mounts may be in place", m.Unreadable), check
	}
	return "", ""
}

// removeProgram plans to stop the daemon, and to remove its units and its package or
// programs.
func (d *differ) removeProgram(p *product.Daemon) {
	if p.Timer() != "" { // first, like the socket below
		d.stopTimer(p)
		if text, there := d.r.Contents[p.OwnTimer()]; there && !strings.HasPrefix(text, header) {
			d.p.note("%s is your own file and is kept", p.OwnTimer())
		}
	}
	for _, unit := range slices.Backward(p.Units()) { // the socket first, because it would start the service again
		if u, known := d.r.Units[unit]; known && u.Load != "not-found" && u.Active != "inactive" {
			d.p.change("stop", unit, "")
			d.p.step("stop", unit)
		}
	}
	unit, socket := p.OwnUnits()
	text, there := d.r.Contents[unit]
	author := unitOwner(p.Name, text)
	if there && author == ownerAdministrator {
		d.p.note("%s is your own file and is kept", unit)
	}
	if have, installed := d.r.Packages[p.Name]; installed {
		d.p.change("remove", have.NEVRA, "")
		d.p.step("erase", p.Name)
		if there && (author == ownerProgram || author == ownerInstaller) { // of an interrupted run
			d.p.change("remove", unit, "")
			d.p.step("drop", unit)
			d.p.step("drop", socket)
		}
		return
	}
	if owner := d.r.Owners[product.Path(p.Name)]; owner != "" {
		d.p.note("%s belongs to the package %s and is kept", product.Path(p.Name), owner)
		return
	}
	if there && (author == ownerProgram || author == ownerInstaller) {
		d.p.change("remove", unit, "")
		d.p.step("deregister", p.Name)
		d.p.step("drop", unit)
		d.p.step("drop", socket)
	}
	if there && author == ownerAdministrator {
		return // the remaining unit needs them
	}
	for _, program := range p.Programs() {
		path := product.Path(program)
		if have := d.r.Files[path].State; have != "absent" && have != "" {
			d.p.change("remove", path, "")
			d.p.step("drop", path)
		}
	}
}

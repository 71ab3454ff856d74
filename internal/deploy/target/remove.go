package target

import (
	"fmt"
	"strings"
)

// Remove plans the way back: daemons stopped, packages, programs and everything
// that nnf-deploy has brought removed. Mounts are never touched; while clientmountd
// has some, force is needed, because they would never be unmounted.
func Remove(w *Want, r *Report, force bool) (*Plan, error) {
	switch {
	case r.Systemd == "":
		return nil, problemf("nnf-deploy is for nodes that are up, not for images", "systemd does not run there")
	case r.Busy:
		return nil, problemf("wait for its end, then run it again", "another nnf-deploy is at work there")
	}
	d := &differ{w: w, r: r, p: new(Plan)}
	for i := range w.Daemons {
		if err := d.remove(&w.Daemons[i], force); err != nil {
			return nil, err
		}
	}
	if r.Forgotten && d.p.Empty() {
		d.p.change("remove", "/var/lib/nnf-deploy", "")
	}
	d.p.step("reload")
	d.p.step("forget")
	return d.p, nil
}

func (d *differ) remove(daemon *Daemon, force bool) error {
	bin := daemon.Bin
	if why, hint := d.r.mounts(bin).inTheWay(); why != "" {
		if !force {
			return problemf(hint, "%s", why)
		}
		d.p.note("%s; mounts stay", why)
	}
	if bin != "" {
		d.removeProgram(bin)
		d.p.step("unkeep", bin)
	}
	for _, path := range places(daemon) {
		if have := d.r.Files[path]; have.State != "absent" && have.State != "" && path != "/usr/bin/nnf-dmctl" {
			d.p.change("remove", path, "")
			d.p.step("drop", path)
		}
	}
	d.p.step("rmdir", "/etc/"+daemon.Name)
	if bin == "" {
		return nil
	}
	for _, path := range []string{"/etc/systemd/system/" + bin + ".service", "/etc/systemd/system/" + bin + ".service.d/override.conf"} {
		d.p.step("drop", path+".retired-by-nnf-deploy")
	}
	for _, path := range []string{"/etc/" + bin + "/config.d", "/etc/" + bin, "/etc/systemd/system/" + bin + ".service.d"} {
		d.p.step("rmdir", path)
	}
	return nil
}

// inTheWay is why clientmountd must not be removed, because its mounts would stay
// for ever; "": nothing is mounted.
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

func (d *differ) removeProgram(bin string) {
	for _, unit := range []string{bin + ".socket", bin + ".service"} {
		if u, known := d.r.Units[unit]; known && u.Load != "not-found" && u.Active != "inactive" {
			d.p.change("stop", unit, "")
			d.p.step("stop", unit)
		}
	}
	path, unit := "/usr/bin/"+bin, "/etc/systemd/system/"+bin+".service"
	text, there := d.r.Contents[unit]
	whose := unitOwner(bin, text)
	if there && whose == foreign {
		d.p.note("%s is yours and stays", unit)
	}
	if have, installed := d.r.Packages[bin]; installed {
		d.p.change("remove", have.NEVRA, "")
		d.p.step("erase", bin)
		return
	}
	if owner := d.r.Owners[path]; owner != "" {
		d.p.note("%s belongs to %s and stays", path, owner)
		return
	}
	if there && (whose == own || whose == installer) {
		d.p.change("remove", unit, "")
		d.p.step("unmake", bin)
		d.p.step("drop", unit)
		d.p.step("drop", strings.TrimSuffix(unit, ".service")+".socket")
	}
	for _, p := range []string{path, "/usr/bin/nnf-dmctl"} {
		if p != path && bin != "nnf-dm" || there && whose == foreign {
			continue
		}
		if have := d.r.Files[p].State; have != "absent" && have != "" {
			d.p.change("remove", p, "")
			d.p.step("drop", p)
		}
	}
}

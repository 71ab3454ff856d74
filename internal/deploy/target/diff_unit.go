package target

import (
	"maps"
	"slices"
	"strings"
)

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

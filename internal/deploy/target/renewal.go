package target

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// A daemon with an account of its own on the node renews its token, and stores it in its state
// directory. A socket-activated daemon does so only while it runs, so a timer starts it.

// ownAccount reports whether the wanted token of the daemon is that of its account on this node
// only.
func (d *Daemon) ownAccount(node string) bool {
	if d.Bin == "" || !d.credentials() {
		return false
	}
	claims, err := kube.ClaimsOf(strings.TrimSpace(string(d.Token)))
	return d.PerNode || d.Keep || err == nil && kind(d, node, claims.Subject) == KindPerNode
}

// Renews returns an error if the program on the node is too old to renew a token: the daemon would
// lose its access when the token expires. The error is a *Problem.
func (r *Report) Renews(d *Daemon) error {
	s := r.Statuses[d.Bin]
	if s.Status != nil && s.Renewal != nil {
		return nil
	}
	if r.Files[product.Path(d.Bin)].State == "absent" {
		return notInstalled(d.Bin)
	}
	why := "the daemon would lose its access when the token expires"
	if s.Err != nil {
		why = "it gives no valid answer to status -o json"
	}
	return problemf("install the current version in the same run, with --rpm or --binary-dir instead of --no-programs",
		"%s %s on the node cannot renew a token of its own account: %s", d.Bin, cmp.Or(r.version(d.Bin), "(unknown version)"), why)
}

// Replaceable returns an error if systemd decrypts the token of the daemon: a token in /etc would not
// be used, and would be there without encryption. The error is a *Problem.
func (r *Report) Replaceable(d *Daemon) error {
	if d.Bin == "" {
		return nil
	}
	dropIns := d.product().DropIns() + "/"
	for _, path := range slices.Sorted(maps.Keys(r.Contents)) {
		if !strings.HasPrefix(path, dropIns) {
			continue
		}
		for line := range strings.Lines(r.Contents[path]) {
			if strings.HasPrefix(strings.TrimSpace(line), "LoadCredentialEncrypted=") {
				return problemf("encrypt the new token on the node: see credentials.md, or remove the drop-in",
					"systemd decrypts the token of %s on the node (%s), so nnf-deploy cannot replace it", d.Bin, path)
			}
		}
	}
	return nil
}

// renewal returns an error if nnf-deploy cannot replace the token of the daemon, or if the daemon must
// get a token of its own account, and the program that stays on the node cannot renew it.
func (d *differ) renewal(daemon *Daemon) error {
	if daemon.credentials() {
		if err := d.r.Replaceable(daemon); err != nil {
			return err
		}
	}
	if !daemon.ownAccount(d.w.Node) {
		return nil
	}
	if d.programs[daemon.Bin] { // the switch checks the new one
		d.checked = append(d.checked, daemon.Bin)
		return nil
	}
	if err := d.r.Renews(daemon); err != nil {
		return err
	}
	if s := d.r.Statuses[daemon.Bin].Renewal; s.Error == "" && !s.Enabled {
		d.p.note("%s does not renew its token, because kubernetes.renew_token is false: repeat the installation before the token expires", daemon.Bin)
	}
	return nil
}

// directories returns where the daemon may have stored a token: first the directory that it uses, then
// the default one. other is the first one, or "" if that is the default one. A directory whose name
// cannot be in a manifest is not included.
func (r *Report) directories(d *Daemon) (list []string, other string) {
	p := d.product()
	if s := r.Statuses[d.Bin]; s.Status != nil && s.Renewal != nil && s.Renewal.Error == "" {
		other = s.Renewal.Directory
	}
	switch {
	case other == p.RenewalDirectory() || other == "":
		return []string{p.RenewalDirectory()}, ""
	case !word.MatchString(other) || !path.IsAbs(other) || path.Clean(other) != other:
		return []string{p.RenewalDirectory()}, other
	}
	return []string{other, p.RenewalDirectory()}, other
}

// storedToken returns the path of the token that the daemon has renewed itself.
func (r *Report) storedToken(d *Daemon) string {
	list, _ := r.directories(d)
	return list[0] + "/" + product.TokenFile
}

// unstore plans to remove what the daemon has stored, even if it stores that only after the inspection.
// This must be the last step, because there is no backup: the directory belongs to the user of the
// daemon, who could direct it elsewhere. A directory that the daemon reports must belong to its user,
// because a process of this user can report any.
func (d *differ) unstore(daemon *Daemon) {
	list, other := d.r.directories(daemon)
	for _, dir := range list {
		for _, name := range product.StoredFiles {
			d.unstoreFile(daemon, dir, name, dir == other)
		}
	}
	if other != "" && list[0] != other {
		d.p.note("%s may have stored a token in %.300q: remove it", daemon.Bin, other)
	}
}

func (d *differ) unstoreFile(daemon *Daemon, dir, name string, reported bool) {
	path := dir + "/" + name
	if token, _ := product.Credentials(daemon.Name); path == token {
		return // the installed token
	}
	switch d.r.Files[path].State {
	case "directory":
		d.p.note("%s is a directory and is kept", path)
		return
	case "", "absent":
	default:
		d.p.change("remove", path, "")
	}
	if reported {
		d.p.step("unstore", path, daemon.product().User)
	} else {
		d.p.step("unstore", path)
	}
}

// stored plans to remove the token that the daemon has renewed itself, unless it is the newest one
// of the account. If the new token does not work, the previous state still includes the stored token.
func (d *differ) stored(daemon *Daemon) {
	switch {
	case daemon.Bin == "" || !daemon.credentials():
		return
	case !daemon.ownAccount(d.w.Node):
		d.unstore(daemon)
		return
	}
	list, other := d.r.directories(daemon)
	for i, dir := range list {
		switch path := dir + "/" + product.TokenFile; d.r.Files[path].State {
		case "", "absent":
			continue // the daemon may store one at any time
		case storedFile:
			token, _ := product.Credentials(daemon.Name)
			installed := d.r.Claims[token]
			if !daemon.Keep {
				installed, _ = kube.ClaimsOf(strings.TrimSpace(string(daemon.Token)))
			}
			if i == 0 && d.r.Claims[path].Newer(installed) {
				continue
			}
		}
		d.unstoreFile(daemon, dir, product.TokenFile, dir == other)
	}
}

// directory plans the state directory of a daemon that cannot create it, as the package creates it. A
// link belongs to the administrator.
func (d *differ) directory(daemon *Daemon) {
	p := daemon.product()
	if daemon.Bin == "" || p.User == "root" || d.packaged(daemon.Bin) {
		return
	}
	path := p.RenewalDirectory()
	switch have := d.r.Files[path]; {
	case have.State == "absent" || have.State == "":
		d.p.change("write", path, "")
	case have.State == "directory" && ("0"+have.Mode != product.RenewalMode || have.Owner != p.RenewalOwner()):
		d.p.change("permissions", path, "")
	case have.State != "directory":
		return
	}
	// Even if there is nothing to change: an interrupted run may have created it, and its leftovers are
	// removed first.
	d.p.step("directory", product.RenewalMode, p.RenewalOwner(), path)
}

// packaged reports whether the units of the daemon come from a package, after the installation.
func (d *differ) packaged(bin string) bool {
	return len(d.w.Payload.Packages) > 0 || d.r.Packaged[bin]
}

// timerRecord is the drop-in that records that nnf-deploy has enabled the timer. Without it, the timer
// belongs to the administrator.
const timerRecord = header + "# The daemon has an account of its own on this node, so nnf-deploy has enabled this timer. It disables\n# the timer when the daemon gets shared credentials.\n"

// ownTimer reports whether nnf-deploy has written the unit of the timer.
func (r *Report) ownTimer(p *product.Daemon) bool {
	return strings.HasPrefix(r.Contents[p.OwnTimer()], header)
}

// timerRecorded reports whether nnf-deploy has enabled the timer.
func (r *Report) timerRecorded(p *product.Daemon) bool {
	have := r.Files[p.TimerRecord()].State
	return have != "" && have != "absent"
}

// timer plans the state of the timer. This is one of the last steps: the timer would start the daemon.
func (d *differ) timer(daemon *Daemon) {
	p := daemon.product()
	switch {
	case p.Timer() == "" || !daemon.credentials():
	case daemon.ownAccount(d.w.Node):
		d.enableTimer(&p)
	default:
		if u := d.r.Units[p.Timer()]; u.File == "enabled" && !d.r.timerRecorded(&p) && !d.r.ownTimer(&p) && d.r.Kind(daemon, d.w.Node) == KindPerNode {
			d.p.note("%s stays enabled, because nnf-deploy has not enabled it", p.Timer())
		}
		if d.r.timerRecorded(&p) || d.r.ownTimer(&p) {
			d.stopTimer(&p)
			d.removeTimer(&p, "remove")
		}
	}
}

func (d *differ) enableTimer(p *product.Daemon) {
	name, own := p.Timer(), d.r.ownTimer(p)
	u, packaged, before := d.r.Units[name], d.packaged(p.Name), len(d.p.Changes)
	_, there := d.r.Contents[p.OwnTimer()]
	switch {
	case u.Load == "masked":
		d.p.note("%s is masked and stays so: %s renews its token only while jobs use it", name, p.Name)
		return
	case packaged && own:
		d.p.change("remove", p.OwnTimer(), "it hides the unit of the package")
		d.p.step("remove", p.OwnTimer())
	case !packaged && (own || !there):
		own = d.place(&file{path: p.OwnTimer(), mode: "0644", owner: "root:root", content: []byte(header + p.TimerText)}, "file") || own
	case u.Load != "loaded" && !d.programs[p.Name]:
		d.p.note("the package of %s on the node has no %s: %s renews its token only while jobs use it", p.Name, name, p.Name)
		return
	}
	enabled := onAtBoot(u)
	if !enabled || own || d.r.timerRecorded(p) {
		d.place(&file{path: p.TimerRecord(), mode: "0644", owner: "root:root", content: []byte(timerRecord)}, "file")
	}
	if !enabled {
		d.p.change("enable", name, "")
	}
	if u.Active != "active" {
		d.p.change("start", name, "")
	}
	if len(d.p.Changes) > before {
		d.p.step("reload")
		d.p.step("enable-now", name)
	}
}

// stopTimer plans to stop and disable the timer.
func (d *differ) stopTimer(p *product.Daemon) {
	name := p.Timer()
	u := d.r.Units[name]
	if running(u) {
		d.p.change("stop", name, "")
	}
	if u.File == "enabled" {
		d.p.change("disable", name, "")
	}
	if running(u) || u.File == "enabled" {
		d.p.step("disable-now", name)
	}
}

// removeTimer plans to remove what nnf-deploy has written for the timer. verb is that of the manifest.
func (d *differ) removeTimer(p *product.Daemon, verb string) {
	if d.r.ownTimer(p) {
		d.p.change("remove", p.OwnTimer(), "")
		d.p.step(verb, p.OwnTimer())
	}
	if d.r.timerRecorded(p) {
		d.p.change("remove", p.TimerRecord(), "")
		d.p.step(verb, p.TimerRecord())
		d.p.step(verb, p.TimerLink())
		if verb == "drop" { // as systemctl disable does
			d.p.step("rmdir", path.Dir(p.TimerLink()))
		}
	}
	d.p.step("reload")
}

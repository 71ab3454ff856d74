package node

import "strings"

// unitOf says in a few words what a process belongs to, by the text of its
// /proc/PID/cgroup (cgroups(7)): a batch job, a container, or a unit of systemd. It
// returns "" when the text tells none of these.
func unitOf(cgroup string) string {
	var path string
	for line := range strings.Lines(cgroup) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, at, _ := strings.Cut(rest, ":")
		// Version 2 has no controllers. With version 1 systemd's own hierarchy is complete.
		if at != "/" && (controllers == "" || controllers == "name=systemd" && path == "") {
			path = at
		}
		// Slurm makes a hierarchy of its own for each controller of version 1.
		if strings.HasPrefix(at, "/slurm") {
			path = at
			break
		}
	}
	parts := strings.Split(path, "/")
	if job := slurmJob(parts); job != "" {
		return job
	}
	unit := ""
	for i, part := range parts {
		if c := container(parts[:i], part); c != "" {
			return c
		}
		if !strings.HasSuffix(part, ".service") && !strings.HasSuffix(part, ".scope") {
			continue
		}
		if strings.HasPrefix(unit, "user@") {
			unit, _, _ = strings.Cut(unit, "/")
			unit += "/" + part // a unit of the user's own manager
		} else {
			unit = part
		}
	}
	return unit
}

// slurmJob finds .../job_123/step_0/... below a directory of Slurm.
func slurmJob(parts []string) string {
	slurm := false
	for _, part := range parts {
		slurm = slurm || strings.HasPrefix(part, "slurm") || strings.HasSuffix(part, "_slurmstepd.scope")
		if id, ok := strings.CutPrefix(part, "job_"); ok && slurm && number(id) {
			return "slurm job " + id
		}
	}
	return ""
}

// runtimes are the prefixes that container runtimes give to the names of their scopes.
var runtimes = [][2]string{
	{"docker-", "docker"}, {"libpod-", "podman"}, {"cri-containerd-", "containerd"}, {"crio-", "cri-o"}, {"nerdctl-", "containerd"},
}

// shortID is how much of a container's id its runtime shows in lists.
const shortID = 12

// container returns which container the directory name of a cgroup below above is, or "".
func container(above []string, name string) string {
	runtime, id := "", strings.TrimSuffix(name, ".scope")
	for _, r := range runtimes {
		if rest, ok := strings.CutPrefix(id, r[0]); ok {
			runtime, id = r[1]+" ", rest
			break
		}
	}
	// containerd without systemd: kubepods-...:cri-containerd:ID
	if i := strings.LastIndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	if len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	if runtime == "" && len(above) > 0 {
		switch parent := above[len(above)-1]; parent {
		case "docker":
			runtime = "docker "
		case "libpod_parent":
			runtime = "podman "
		}
	}
	return runtime + "container " + id[:shortID]
}

func number(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

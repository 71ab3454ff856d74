package datamovement

import (
	"cmp"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// FindMount returns the mount of this compute that source lies in: the longest
// by whole names, which must be mounted (contract nnf-dm.md 4.2.1, "Do better"
// 5, 19). Its type is lustre or gfs2; xfs and raw cannot be mounted a second
// time on the rabbit. computes are the entries of the workflow's ClientMounts
// in the node's namespace.
func FindMount(source string, computes []Mount, node string) (Mount, error) {
	p, err := parsePath(fieldSource, source)
	if err != nil {
		return Mount{}, err
	}
	if len(computes) == 0 {
		return Mount{}, failed(ReasonMountNotFound, "no client mounts found for node '%s'", node)
	}
	var best *Mount
	for i := range computes {
		m := &computes[i]
		if m.Path == "" {
			continue
		}
		if _, ok := within(p.Path, m.Path); ok && (best == nil || better(m, best)) {
			best = m
		}
	}
	switch {
	case best == nil:
		return Mount{}, failed(ReasonMountNotFound, "source path '%s' not found in list of client mounts", source)
	case !best.Ready:
		return Mount{}, failed(ReasonMountNotReady, "ClientMount %s/%s: '%s' is not mounted, or is being unmounted", best.Namespace, best.Name, best.Path)
	case best.Type != dws.TypeLustre && best.Type != dws.TypeGFS2:
		f := invalid(fieldSource, "filesystem not supported: '%s'", trimmed(best.Type))
		f.Reason = ReasonFileSystem
		return Mount{}, f
	case best.Reference == nil:
		return Mount{}, failed(ReasonMountNotFound, "ClientMount %s/%s: Source path '%s' does not have device reference", best.Namespace, best.Name, source)
	}
	return *best, nil
}

// trimmed is quote without the quotes, inside those of a fixed text.
func trimmed(s string) string {
	q := quote(s)
	return q[1 : len(q)-1]
}

// better prefers the longer path, then what is mounted, then the order of
// names, so that the choice does not depend on the order of a list.
func better(a, b *Mount) bool {
	if len(a.Path) != len(b.Path) {
		return len(a.Path) > len(b.Path)
	}
	if a.Ready != b.Ready {
		return a.Ready
	}
	return byName(a, b) < 0
}

func byName(a, b *Mount) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Index, b.Index))
}

// OnRabbit returns source as the rabbit sees it: the mount there of the same
// storage, and what of source is behind m's path (contract nnf-dm.md 4.2.2).
// servers are the entries of the workflow's ClientMounts in the namespace of
// rabbit; for Lustre, whose servers may be elsewhere, those in the namespaces
// of all rabbits ("Do better" 18): the own rabbit's is preferred. Entries of
// computes must not be among them, for their paths differ.
func OnRabbit(source string, m Mount, servers []Mount, node, rabbit string) (string, error) {
	p, _, err := FindServer(source, m, servers, node, rabbit)
	return p, err
}

// FindServer is OnRabbit that returns the mount there as well.
func FindServer(source string, m Mount, servers []Mount, node, rabbit string) (string, Mount, error) {
	p, err := parsePath(fieldSource, source)
	if err != nil {
		return "", Mount{}, err
	}
	rest, ok := within(p.Path, m.Path)
	if m.Path == "" || !ok {
		return "", Mount{}, failed(ReasonMountNotFound, "source path '%s' not found in list of client mounts", source)
	}
	if len(servers) == 0 {
		return "", Mount{}, failed(ReasonMountNotFound, "no client mounts found for node '%s'", rabbit)
	}
	var same []*Mount
	for i := range servers {
		if s := &servers[i]; s.Path != "" && s.Type == m.Type && sameDevice(s.Reference, m.Reference) {
			same = append(same, s)
		}
	}
	if len(same) == 0 {
		return "", Mount{}, failed(ReasonMountNotFound, "initiator '%s' not found in list of client mounts residing on '%s'", node, rabbit)
	}
	s := slices.MinFunc(same, func(a, b *Mount) int {
		return cmp.Or(first(a.Ready, b.Ready), first(a.Namespace == rabbit, b.Namespace == rabbit), byName(a, b))
	})
	if !s.Ready {
		return "", Mount{}, failed(ReasonMountNotReady, "ClientMount %s/%s: '%s' is not mounted on the rabbit, or is being unmounted", s.Namespace, s.Name, s.Path)
	}
	out := cleanPath{Path: s.Path + rest, Slash: p.Slash}.String()
	if len(out) > maxPath {
		return "", Mount{}, refused(fieldSource, source, "it is longer than 4095 bytes on the rabbit")
	}
	return out, *s, nil
}

// first sorts what is true before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// MapSource is FindMount followed by OnRabbit.
func MapSource(source string, computes, servers []Mount, node, rabbit string) (Mount, string, error) {
	m, err := FindMount(source, computes, node)
	if err != nil {
		return Mount{}, "", err
	}
	p, err := OnRabbit(source, m, servers, node, rabbit)
	return m, p, err
}

package server

import (
	"errors"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

const (
	maxGraves = 4096
	graveTime = time.Hour
)

// graves remember movements that were cancelled before their start. The rabbit
// never ends those, so they are deleted at once, and whoever asks for them is
// told that they were cancelled ("Do better" 13).
//
// They are in memory only, and harmless to lose: nothing was copied and nothing
// waits for them. Whoever asks after a restart is told that there is no such
// movement, which is an end as well.
type graves struct {
	mu sync.Mutex
	m  map[string]grave
}

type grave struct {
	dm *nnf.DataMovement
	at time.Time
}

func (g *graves) bury(dm *nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil {
		g.m = make(map[string]grave)
	}
	now := time.Now()
	if len(g.m) >= maxGraves {
		oldest := ""
		for name, old := range g.m {
			if now.Sub(old.at) > graveTime {
				delete(g.m, name)
			} else if oldest == "" || old.at.Before(g.m[oldest].at) {
				oldest = name
			}
		}
		if len(g.m) >= maxGraves {
			delete(g.m, oldest)
		}
	}
	g.m[dm.Name] = grave{dm, now}
}

func (g *graves) find(name string) (grave, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	found, ok := g.m[name]
	if ok && time.Since(found.at) > graveTime {
		delete(g.m, name)
		return grave{}, false
	}
	return found, ok
}

// findMeanwhile is find for an error that says that the movement is missing: it
// may have been buried since somebody looked here.
func (g *graves) findMeanwhile(name string, err error) (grave, bool) {
	if !errors.Is(err, datamovement.ErrNotFound) {
		return grave{}, false
	}
	return g.find(name)
}

func (g *graves) clear(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, name)
}

// matching returns those that have all the labels.
func (g *graves) matching(labels map[string]string) (out []*nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
next:
	for _, old := range g.m {
		for k, v := range labels {
			if old.dm.Labels[k] != v {
				continue next
			}
		}
		if time.Since(old.at) <= graveTime {
			out = append(out, old.dm)
		}
	}
	return out
}

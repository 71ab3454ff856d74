package server

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// sight is where data movements are watched, in one line for systemctl status.
type sight struct {
	tell func(string) // nil: nobody wants to know

	mu   sync.Mutex
	lost map[string]bool // by namespace that is watched
}

// watch says that a namespace is watched, or that its watch is lost for now.
func (s *sight) watch(namespace string, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = make(map[string]bool)
	}
	if was, ok := s.lost[namespace]; !ok || was != lost {
		s.lost[namespace] = lost
		s.say()
	}
}

// end says that a namespace is not watched any more.
func (s *sight) end(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lost, namespace)
	s.say()
}

// say is called under mu.
func (s *sight) say() {
	if s.tell != nil {
		s.tell(s.text())
	}
}

func (s *sight) text() string {
	if len(s.lost) == 0 {
		return "waiting for requests"
	}
	var lost []string
	for ns, is := range s.lost {
		if is {
			lost = append(lost, ns)
		}
	}
	if len(lost) > 0 {
		slices.Sort(lost)
		return "the API server does not show the data movements of " + strings.Join(lost, ", ") + ", trying again"
	}
	return "following data movements of " + strings.Join(slices.Sorted(maps.Keys(s.lost)), ", ")
}

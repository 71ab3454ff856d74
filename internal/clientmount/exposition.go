package clientmount

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/version"
)

// Metric describes the metrics with one name in the file metrics.textfile.
type Metric struct {
	Name   string
	Type   string // "gauge", "counter", or "summary" without quantiles
	Labels []Label
	Help   string // one line
	// samples calls add with each value of a snapshot, in a constant order. suffix is empty
	// except for a summary.
	samples func(s *snapshot, add func(suffix string, value float64, labels ...string))
}

// Label is a label of a metric.
type Label struct {
	Name   string
	Values []string // all values; nil: any text
}

// Metrics returns all metrics, in the order of the file. The documentation contains them.
func Metrics() []Metric { return slices.Clone(metricTable) }

// The values of labels are from fixed sets, so the number of time series of a node is
// bounded: no names of objects, no paths, no text of users.
var metricTable = []Metric{
	{
		Name: "clientmountd_up", Type: "gauge",
		Help:    "1 while clientmountd runs, 0 after it was stopped. A crash leaves 1.",
		samples: one(func(s *snapshot) float64 { return truth(s.up) }),
	}, {
		Name: "clientmountd_build_info", Type: "gauge", Labels: []Label{{"version", nil}},
		Help: "Constant 1 with the version of clientmountd.",
		samples: func(_ *snapshot, add func(string, float64, ...string)) {
			add("", 1, version.Version)
		},
	}, {
		Name: "clientmountd_start_time_seconds", Type: "gauge",
		Help:    "When clientmountd was started, in seconds since 1970.",
		samples: one(func(s *snapshot) float64 { return seconds(s.started) }),
	}, {
		Name: "clientmountd_last_change_timestamp_seconds", Type: "gauge",
		Help:    "When clientmountd wrote these metrics because something had changed, in seconds since 1970.",
		samples: one(func(s *snapshot) float64 { return seconds(s.written) }),
	}, {
		Name: "clientmountd_mounts", Type: "gauge", Labels: []Label{{"type", mountTypes[:]}, {"state", names(shownStates[:])}},
		Help: "Mounts of the ClientMounts of this node. A type appears with its first mount.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			for t, typ := range mountTypes {
				if !s.seen[t] {
					continue
				}
				for i, state := range shownStates {
					add("", float64(s.mounts[t][i]), typ, string(state))
				}
			}
		},
	}, {
		Name: "clientmountd_failed_attempts_total", Type: "counter", Labels: []Label{{"reason", failureReasons[:]}},
		Help: "Failed attempts to mount or unmount what a ClientMount lists, by the reason.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			for i, n := range s.failed {
				add("", float64(n), failureReasons[i])
			}
		},
	}, {
		Name: "clientmountd_step_failures_total", Type: "counter", Labels: []Label{{"step", stepNames()}},
		Help: "Failed steps of mounts and unmounts.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			for i, kind := range stepNames() {
				add("", float64(s.steps[i].failures), kind)
			}
		},
	}, {
		Name: "clientmountd_step_duration_seconds", Type: "summary", Labels: []Label{{"step", stepNames()}},
		Help: "Number of steps of mounts and unmounts (_count) and their total duration (_sum), including failed ones. A step appears when it has run.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			for i, kind := range stepNames() {
				if st := &s.steps[i]; st.count > 0 {
					add("_sum", st.total.Seconds(), kind)
					add("_count", float64(st.count), kind)
				}
			}
		},
	}, {
		Name: "clientmountd_step_last_duration_seconds", Type: "gauge", Labels: []Label{{"step", stepNames()}},
		Help: "Duration of the last run of a step. A step appears when it has run.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			for i, kind := range stepNames() {
				if st := &s.steps[i]; st.count > 0 {
					add("", st.last.Seconds(), kind)
				}
			}
		},
	}, {
		Name: "clientmountd_api_connected", Type: "gauge",
		Help:    "1 if the last request of the watch on the API server succeeded, 0 otherwise and after a stop.",
		samples: one(func(s *snapshot) float64 { return truth(s.api.connected) }),
	}, {
		Name: "clientmountd_api_last_change_timestamp_seconds", Type: "gauge",
		Help:    "When clientmountd_api_connected last changed, in seconds since 1970.",
		samples: one(func(s *snapshot) float64 { return seconds(s.api.since) }),
	}, {
		Name: "clientmountd_api_outages_total", Type: "counter",
		Help:    "How often the connection to the API server was lost, or could not be established at the start.",
		samples: one(func(s *snapshot) float64 { return float64(s.api.outages) }),
	}, {
		Name: "clientmountd_api_reconnects_total", Type: "counter",
		Help:    "How often the API server answered again after an outage.",
		samples: one(func(s *snapshot) float64 { return float64(s.api.reconnects) }),
	}, {
		Name: "clientmountd_token_info", Type: "gauge", Labels: []Label{{"identity", names(tokenKinds[:])}},
		Help: "Constant 1 with the kind of account of the token. Absent if the credentials are not a token file.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			if s.token.kind != "" {
				add("", 1, string(s.token.kind))
			}
		},
	}, {
		Name: "clientmountd_token_expiry_timestamp_seconds", Type: "gauge",
		Help:    "When the token expires, in seconds since 1970. Absent if it does not expire.",
		samples: known(func(s *snapshot) time.Time { return s.token.expires }),
	}, {
		Name: "clientmountd_token_renewal_timestamp_seconds", Type: "gauge",
		Help:    "When clientmountd renews the token or tries again, in seconds since 1970. Absent if it does not renew it.",
		samples: known(func(s *snapshot) time.Time { return s.token.renewal }),
	}, {
		Name: "clientmountd_token_renewals_total", Type: "counter", Labels: []Label{{"result", []string{"success", "failure"}}},
		Help: "Renewals of the token since the start of clientmountd.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			add("", float64(s.token.renewals), "success")
			add("", float64(s.token.failures), "failure")
		},
	}, {
		Name: "clientmountd_token_failing", Type: "gauge",
		Help:    "1 if the token has expired, could not be stored, or could not be renewed in half of the time for that; 0 otherwise.",
		samples: one(func(s *snapshot) float64 { return truth(s.token.failing) }),
	}, {
		Name: "clientmountd_nnf_dm_token_expiry_timestamp_seconds", Type: "gauge",
		Help:    "When the token of nnf-dm expires, in seconds since 1970, as nnf-dm had recorded it at the last change of these metrics. Absent if it has no account of its own on this node.",
		samples: known(func(s *snapshot) time.Time { return s.mover.expires }),
	}, {
		Name: "clientmountd_nnf_dm_token_failing", Type: "gauge",
		Help: "1 if the token of nnf-dm has expired, could not be stored, or was not renewed in half of the time for that, even if nnf-dm does not run; 0 otherwise. Absent if it has no account of its own on this node.",
		samples: func(s *snapshot, add func(string, float64, ...string)) {
			if s.mover.known {
				add("", truth(s.mover.failing))
			}
		},
	},
}

// one returns the samples of a metric without labels.
func one(value func(*snapshot) float64) func(*snapshot, func(string, float64, ...string)) {
	return func(s *snapshot, add func(string, float64, ...string)) { add("", value(s)) }
}

// known returns the sample of a time, none for the zero time.
func known(value func(*snapshot) time.Time) func(*snapshot, func(string, float64, ...string)) {
	return func(s *snapshot, add func(string, float64, ...string)) {
		if t := value(s); !t.IsZero() {
			add("", seconds(t))
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds returns t in seconds since 1970, with milliseconds.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// stepNames returns the kinds of steps with metrics, at their indices in stepKinds.
func stepNames() (list []string) {
	for _, s := range stepKinds {
		if s.metrics {
			list = append(list, string(s.kind))
		}
	}
	return list
}

func names[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, name := range list {
		out[i] = string(name)
	}
	return out
}

// text returns the snapshot in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats).
func (s *snapshot) text() []byte {
	b := make([]byte, 0, 8<<10)
	for i := range metricTable {
		m := &metricTable[i]
		head := false
		m.samples(s, func(suffix string, value float64, labels ...string) {
			if !head {
				head = true
				b = append(b, "# HELP "+m.Name+" "+helpEscapes.Replace(m.Help)+"\n# TYPE "+m.Name+" "+m.Type+"\n"...)
			}
			b = append(b, m.Name+suffix...)
			for i, label := range labels {
				b = append(b, separator(i)+m.Labels[i].Name+`="`+labelEscapes.Replace(label)+`"`...)
			}
			if len(labels) > 0 {
				b = append(b, '}')
			}
			b = strconv.AppendFloat(append(b, ' '), value, 'f', -1, 64)
			b = append(b, '\n')
		})
	}
	return b
}

func separator(i int) string {
	if i == 0 {
		return "{"
	}
	return ","
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

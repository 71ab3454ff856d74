package inventory

import (
	"strings"
	"testing"
)

func TestParseServer(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"https://10.0.0.5:6443", "10.0.0.5:6443", ""},
		{"https://10.0.0.5", "10.0.0.5:443", ""},
		{"https://api.example.org", "api.example.org:443", ""},
		{"https://api.example.org/", "api.example.org:443", ""},
		{"https://[fd00::1]:6443", "[fd00::1]:6443", ""},
		{"https://[fd00::1]", "[fd00::1]:443", ""},
		{"10.0.0.5:6443", "10.0.0.5:6443", ""},
		{"[fd00::1]", "[fd00::1]:443", ""},
		{"api", "api:443", ""},
		{"HTTPS://api:1", "api:1", ""},
		{"http://10.0.0.5:8080", "", "does not use https"},
		{"https://rancher.example.org/k8s/clusters/c-1", "", "has a path"},
		{"https://u:p@h", "", "contains more than"},
		{"https://h?x=1", "", "contains more than"},
		{"https://h:0", "", "port"},
		{"https://h:70000", "", "port"},
		{"https://h:x", "", "is not valid"},
		{"https://[fe80::1%25eth0]:1", "", "has a zone"},
		{"https://", "", "neither"},
		{"", "", "neither"},
		{"https://a b", "", ""},
		{"https://-h", "", "neither"},
	} {
		got, err := ParseServer(tt.in)
		if tt.want == "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || tt.want != "" && (err != nil || got.String() != tt.want) {
			t.Errorf("%q: %v %v", tt.in, got, err)
		}
	}
}

func TestForComputes(t *testing.T) {
	for _, tt := range []struct{ server, host, port, want string }{
		{"https://a:1", "", "", "a:1"},
		{"https://a:1", "b", "", "b:1"},
		{"https://a:1", "", "2", "a:2"},
		{"https://a:1", "fd00::2", "2", "[fd00::2]:2"},
		{"https://a:1", "[fd00::2]", "", "[fd00::2]:1"},
		{"https://a/path", "b", "", "b:443"},
		{"https://a/path", "b", "2", "b:2"},
		{"https://a/path", "", "2", ""},
		{"http://a", "b", "", ""},
		{"https://a:1", "b:2", "", ""},
		{"https://a:1", "https://b", "2", ""},
		{"https://a:1", "b\nc", "", ""},
		{"https://a:1", "b", "0", ""},
	} {
		got, err := ForComputes(tt.server, tt.host, tt.port)
		if (err == nil) != (tt.want != "") || err == nil && got.String() != tt.want {
			t.Errorf("%v: %v %v", tt, got, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1": true, "127.1.2.3": true, "::1": true, "0.0.0.0": true, "localhost": true, "10.0.0.1": false, "fd00::1": false, "api": false} {
		if got := (Address{host, 1}).Loopback(); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

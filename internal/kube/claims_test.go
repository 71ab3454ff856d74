package kube

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func part(payload string) string { return base64.RawURLEncoding.EncodeToString([]byte(payload)) }

func TestClaimsOf(t *testing.T) {
	for _, tt := range []struct {
		token, subject string
		expires        int64
		err            error
	}{
		{"e30." + part(`{"sub":"system:serviceaccount:n:a"}`) + ".c2ln", "system:serviceaccount:n:a", -1, nil},
		{"e30." + part(`{"sub":"a","exp":1700000000}`) + ".c2ln", "a", 1700000000, nil},
		{"e30." + part(`{"sub":"a","exp":1700000000}`) + "==.c2ln", "a", 1700000000, nil},
		{"e30." + part(`{"exp":1.7e9}`) + ".c2ln", "", 1700000000, nil},
		{"e30." + part(`{"exp":1700000000.75}`) + ".c2ln", "", 1700000000, nil},
		{"e30." + part(`{"exp":0}`) + ".c2ln", "", 0, nil},
		{"e30." + part(`{"exp":253402300799}`) + ".c2ln", "", lastSecond, nil},
		{"e30." + part(`{"sub":"a","exp":253402300800}`) + ".c2ln", "a", -1, ErrClaimedExpiry},
		{"e30." + part(`{"exp":1099511627775}`) + ".c2ln", "", -1, ErrClaimedExpiry},
		{"e30." + part(`{"exp":1e300}`) + ".c2ln", "", -1, ErrClaimedExpiry},
		{"e30." + part(`{"exp":1e999}`) + ".c2ln", "", -1, ErrClaimedExpiry},
		{"e30." + part(`{"exp":9223372036854775808}`) + ".c2ln", "", -1, ErrClaimedExpiry},
		{"e30." + part(`{"exp":-1}`) + ".c2ln", "", -1, ErrClaimedExpiry},
		{"e30." + part(`{"exp":"soon"}`) + ".c2ln", "", -1, ErrNoClaims},
		{"e30." + part(`{"exp":[]}`) + ".c2ln", "", -1, ErrNoClaims},
		{"e30." + part(`[]`) + ".c2ln", "", -1, ErrNoClaims},
		{"e30.!!.x", "", -1, ErrNoClaims},
		{"a.b", "", -1, ErrNoClaims},
		{"opaque", "", -1, ErrNoClaims},
		{"", "", -1, ErrNoClaims},
	} {
		got, err := ClaimsOf(tt.token)
		var want time.Time
		if tt.expires >= 0 {
			want = time.Unix(tt.expires, 0)
		}
		if got.Subject != tt.subject || !got.Expires.Equal(want) || !errors.Is(err, tt.err) {
			t.Errorf("%s: %+v %v", tt.token, got, err)
		}
		if _, err := json.Marshal(got.Expires); err != nil {
			t.Errorf("%s: %v", tt.token, err)
		}
	}
}

// FuzzParseClaims checks that the expiry of any token can be encoded.
func FuzzParseClaims(f *testing.F) {
	for _, s := range []string{`{"exp":1700000000}`, `{"exp":1e300}`, `{"exp":-1}`, `{"sub":"x","exp":253402300800}`, `[]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		c, err := ParseClaims(part(payload))
		if _, jerr := json.Marshal(c.Expires); jerr != nil || err != nil && !c.Expires.IsZero() {
			t.Errorf("%q: %v, %v, %v", payload, c.Expires, err, jerr)
		}
	})
}

// Newer compares tokens of one account only.
func TestNewer(t *testing.T) {
	of := func(payload string) Claims {
		c, err := ParseClaims(part(payload))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const account = `"kubernetes.io":{"namespace":"n","serviceaccount":{"name":"a","uid":"u1"}},`
	old := of(`{` + account + `"sub":"a","iat":1700000000,"exp":1700000600}`)
	if old.UID != "u1" || old.Issued.Unix() != 1700000000 {
		t.Errorf("%+v", old)
	}
	if c := of(`{"sub":"a","kubernetes.io":[],"iat":1e300}`); c.UID != "" || !c.Issued.IsZero() {
		t.Errorf("%+v", c)
	}
	for payload, want := range map[string]bool{
		`{` + account + `"sub":"a","iat":1700000001}`:                                     true,
		`{"sub":"a","iat":1700000001}`:                                                    true,
		`{` + account + `"sub":"a","iat":1700000000}`:                                     false,
		`{` + account + `"sub":"b","iat":1700000001}`:                                     false,
		`{"sub":"a","iat":1700000001,"kubernetes.io":{"serviceaccount":{"uid":"other"}}}`: false,
		`{"sub":"a"}`: false,
		`{}`:          false,
	} {
		if got := of(payload).Newer(old); got != want {
			t.Errorf("%s: %v", payload, got)
		}
	}
	if (Claims{Issued: old.Issued}).Newer(Claims{}) {
		t.Error("tokens without an account are compared")
	}
}

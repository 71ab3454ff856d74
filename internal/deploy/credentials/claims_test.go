package credentials

import (
	"encoding/base64"
	"testing"
	"time"
)

func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestClaimsOf(t *testing.T) {
	for _, tt := range []struct {
		token, subject string
		expires        int64
	}{
		{jwt(`{"sub":"system:serviceaccount:n:a"}`), "system:serviceaccount:n:a", 0},
		{jwt(`{"sub":"a","exp":1700000000}`), "a", 1700000000},
		{jwt(`{"exp":1.7e9}`), "", 1700000000},
		{jwt(`{"exp":-1}`), "", 0},
		{jwt(`{"exp":1e300}`), "", 0},
		{jwt(`{"exp":"soon"}`), "", 0},
		{jwt(`[]`), "", 0},
		{"e30.e30=.x", "", 0},
		{"e30.!!.x", "", 0},
		{"opaque", "", 0},
		{"", "", 0},
	} {
		got := claimsOf(tt.token)
		var want time.Time
		if tt.expires > 0 {
			want = time.Unix(tt.expires, 0)
		}
		if got.Subject != tt.subject || !got.Expires.Equal(want) {
			t.Errorf("%s: %+v", tt.token, got)
		}
	}
}

package notarysign

import (
	"strings"
	"testing"
)

// What this package publishes, the notary client and the manager read, and the client goes on from
// there. Both use one key store.
func TestClientReadsOurs(t *testing.T) {
	b := newBed(t)
	b.initialise("ci", "qa")
	b.want("roles", strings.Join(b.sign("v1", digestA, ""), " "), "ci qa releases")
	b.want("roles of the manager", b.roles("v1", digestA), "ci qa")
	b.wantIn("notary list", b.notary("list", gun), "v1", digestA[len("sha256:"):])
	b.wantIn("notary delegation list", b.notary("delegation", "list", gun), "targets/ci", "targets/qa",
		"targets/releases")

	b.must(b.client.AddHash(b.ctx(), gun, "v2", 528, digestB[len("sha256:"):], "targets/ci"))
	b.want("roles of v2 that the client signed", b.roles("v2", digestB), "ci")
	b.want("roles of v1 afterwards", b.roles("v1", digestA), "ci qa")
	b.must(b.client.RotateTargetsKey(b.ctx(), gun))
	b.want("our roles after the client rotated", strings.Join(b.sign("v3", digestB, "qa"), " "), "qa")
	b.want("roles of v3", b.roles("v3", digestB), "qa")
}

// What the client publishes, this package edits, and the client goes on from there.
func TestWeEditTheClients(t *testing.T) {
	b := newBed(t)
	_, err := b.client.CreateRepository(b.ctx(), gun, "ci", "qa")
	b.must(err)
	b.must(b.client.AddHash(b.ctx(), gun, "v1", 528, digestA[len("sha256:"):], "targets/ci"))

	b.want("roles", strings.Join(b.sign("v1", digestA, "qa"), " "), "qa")
	b.want("roles of v1", b.roles("v1", digestA), "ci qa")
	r := b.open()
	b.must(r.AddSigner("dev", b.newKey("dev")))
	b.must(r.Publish(b.ctx()))
	b.want("roles of v2", strings.Join(b.sign("v2", digestB, ""), " "), "ci dev qa releases")
	b.wantIn("notary list", b.notary("list", gun), "v2", "v1")
	b.must(b.client.Remove(b.ctx(), gun, "v2", "targets/dev"))
	b.want("roles of v2 after the client removed one", b.roles("v2", digestB), "ci qa")
}

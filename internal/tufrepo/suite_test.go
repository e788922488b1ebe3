package tufrepo_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// Departures from what the suite expects.
const (
	asOneState = "A State is replaced as a whole. After a refresh that fails, no file of it counts, not even those " +
		"before the one that is refused. The next refresh begins again with what is held."
	atOnce = "Root and timestamp are requested at once, and the files of roles side by side. The suite expects one " +
		"request after the other, in the order of the search. Here the order of the result is that of the search."
	everyRole = "The search goes on after the first role that has the target: each role that has signed it counts. A " +
		"role of two delegators counts once for each whose keys have signed."
	noFolder = "Nothing is written to a folder. Pack returns the bytes of the files as they were served."
	noNames  = "A role name that begins with a slash or leads to another folder is refused, and never requested. " +
		"The suite expects a request with the name escaped."
	noStore   = "Targets are not stored, so that each call of Target downloads. The specification allows that."
	notSigned = "Targets of delegated roles are not downloaded: they are images. That a role lists one is what counts."
)

// suite lists each case of the conformance suite for TUF clients, which is
// theupdateframework/tuf-conformance at commit eec841c: the tests that try it here, in our own
// words and on repositories of our own, and where what is expected here differs.
var suite = map[string]struct {
	tests      []func(*testing.T)
	departures []string
}{
	"basic_refresh_requests": {
		tests:      of(TestUpdateTakesThreeRoundTrips, TestRefreshCostsTwoRequestsWhereNothingChanged),
		departures: []string{atOnce},
	},
	"basic_refresh_trusted_data": {tests: of(TestBytesAreKept), departures: []string{noFolder}},
	"implicit_refresh":           {tests: of(TestUpdateTakesThreeRoundTrips)},
	"invalid_initial_root":       {tests: of(TestPinnedRoot)},
	"unsigned_initial_root":      {tests: of(TestPinnedRoot)},
	"unsigned_metadata": {
		tests: of(TestRootKeysAndThresholds, TestKeysAndThresholdsOfOtherRoles), departures: []string{asOneState},
	},
	"url_and_metadata_version_mismatch": {
		tests: of(TestRootRotation, TestThreatTUFMixAndMatch), departures: []string{asOneState},
	},
	"timestamp_content_changes":        {tests: of(TestTimestampOfTheSameVersion)},
	"basic_metadata_hash_support":      {tests: of(TestRefreshFetchesWhatChanged)},
	"targets_hash_mismatch":            {tests: of(TestHashesOfMetadata), departures: []string{asOneState}},
	"snapshot_hash_mismatch":           {tests: of(TestHashesOfMetadata), departures: []string{asOneState}},
	"metadata_bytes_match":             {tests: of(TestBytesAreKept), departures: []string{noFolder}},
	"custom_fields":                    {tests: of(TestFurtherFields, TestFurtherFieldsOfKeysAndRoles)},
	"deprecated_keyid_hash_algorithms": {tests: of(TestFurtherFieldsOfKeysAndRoles)},
	"snapshot_404":                     {tests: of(TestMissingFiles), departures: []string{asOneState}},
	"targets_404":                      {tests: of(TestMissingFiles), departures: []string{asOneState}},
	"timestamp_404":                    {tests: of(TestMissingFiles)},
	"incorrect_metadata_type":          {tests: of(TestThreatUnusableTUFMetadata), departures: []string{asOneState}},
	"faketime":                         {tests: of(TestThreatTUFFreeze)}, // the clock is an argument

	"root_expired":            {tests: of(TestThreatTUFFreeze), departures: []string{asOneState}},
	"timestamp_expired":       {tests: of(TestThreatTUFFreeze)},
	"snapshot_expired":        {tests: of(TestThreatTUFFreeze), departures: []string{asOneState}},
	"targets_expired":         {tests: of(TestThreatTUFFreeze), departures: []string{asOneState}},
	"expired_local_root":      {tests: of(TestRefreshOfExpiredFiles)},
	"expired_local_timestamp": {tests: of(TestRefreshOfExpiredFiles)},

	"client_downloads_expected_file":            {tests: of(TestTarget)},
	"client_downloads_expected_file_in_sub_dir": {tests: of(TestTarget)},
	"repository_substitutes_target_file":        {tests: of(TestThreatTUFTargetOfAnotherContent)},
	"multiple_changes_to_target":                {tests: of(TestTargetThatChanges), departures: []string{noStore}},
	"download_with_hash_algorithms":             {tests: of(TestTarget)},
	"download_with_unknown_hash_algorithm":      {tests: of(TestTargetWithoutAKnownHash, TestTargetOfAnUnknownHash)},
	"artifact_cache":                            {departures: []string{noStore}},

	"snapshot_does_not_meet_threshold": {tests: of(TestKeysAndThresholdsOfOtherRoles)},
	"snapshot_has_too_few_keys": {
		tests:      of(TestKeysAndThresholdsOfOtherRoles),
		departures: []string{asOneState},
	},
	"duplicate_keys":                {tests: of(TestThreatTUFOneKeyCountedTwice)},
	"duplicate_sig_keyids":          {tests: of(TestThreatTwoTUFSignaturesByOneKeyID)},
	"keytype_and_scheme":            {tests: of(TestKeyTypes)},
	"invalid_sig_in_valid_metadata": {tests: of(TestWrongSignatureBesideARightOne)},
	"unusual_role_name":             {tests: of(TestThreatTUFPathTraversal), departures: []string{noNames}},

	"new_timestamp_version_rollback":      {tests: of(TestThreatTUFRollback)},
	"snapshot_rollback":                   {tests: of(TestThreatTUFRollback, TestRollbackWithoutHashes)},
	"targets_role_removal":                {tests: of(TestThreatTUFRollback)},
	"targets_fast_forward_recovery":       {tests: of(TestThreatTUFFastForward)},
	"new_snapshot_fast_forward_recovery":  {tests: of(TestThreatTUFFastForward)},
	"new_timestamp_fast_forward_recovery": {tests: of(TestThreatTUFFastForward)},
	"targets_rollback":                    {tests: of(TestThreatTUFRollback, TestRollbackWithoutHashes)},

	"graph_traversal": {tests: of(TestSearch), departures: []string{atOnce, everyRole}},
	"targetfile_search": {
		tests: of(TestTargetsOfATree), departures: []string{everyRole, notSigned},
	},
	"cached_role_is_verified_against_current_delegator": {tests: of(TestThreatTUFRoleOfTwoDelegators)},
	"delegation_not_in_snapshot":                        {tests: of(TestDelegatedRoleThatDoesNotCount)},
	"root_rotation":                                     {tests: of(TestRootKeysAndThresholds)},
	"non_root_rotations":                                {tests: of(TestKeysAndThresholdsOfOtherRoles)},

	"static_repository": {departures: []string{
		"The repositories are files of the suite, which this repository does not have. They show that a client " +
			"reads what tuf-on-ci and Sigstore's public instance publish.",
	}},
}

func of(tests ...func(*testing.T)) []func(*testing.T) { return tests }

// TestConformanceSuite checks that each case is tried, or says why it is not.
func TestConformanceSuite(t *testing.T) {
	for name, c := range suite {
		if len(c.tests) == 0 && len(c.departures) == 0 {
			t.Errorf("%s: got neither a test nor a reason, want one", name)
		}
	}
	if len(suite) != 53 {
		t.Errorf("got %d cases, want the 53 of the suite", len(suite))
	}
}

// A file counts as it was served, whatever white space it has, and stays so in a record.
func TestBytesAreKept(t *testing.T) {
	r := newRepository(t)
	r.put("/timestamp.json", append(r.served("/timestamp.json"), ' '))
	c := r.client()
	held := refreshed(t, c, nil)
	again, err := c.Unpack(t.Context(), held.Pack(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := refreshed(t, c, again); got != again {
		t.Error("got another State, want the one of the record: its timestamp is what the server has")
	}
	if got, want := again.Versions(), (tufrepo.Versions{Root: 1, Timestamp: 1, Snapshot: 1, Targets: 1}); got != want {
		t.Errorf("got versions %+v, want %+v", got, want)
	}
}

// A hash in timestamp or snapshot that is not that of the file is a fault, and what was held stays.
func TestHashesOfMetadata(t *testing.T) {
	for _, file := range []string{"targets.json", "snapshot.json"} {
		r := newRepository(t)
		r.hashes = true
		r.publish(metadata.TARGETS)
		c := r.client()
		held := refreshed(t, c, nil)
		r.targets[metadata.TARGETS].Signed.Version++
		r.write(metadata.TARGETS)
		wrong := metadata.Hashes{"sha256": make([]byte, sha256.Size)}
		r.snapshot.Signed.Version++
		r.timestamp.Signed.Version++
		if file == "targets.json" {
			r.snapshot.Signed.Meta[file].Hashes = wrong
			r.write(metadata.SNAPSHOT, metadata.TIMESTAMP)
		} else {
			r.write(metadata.SNAPSHOT)
			r.timestamp.Signed.Meta[file].Hashes = wrong
			r.write(metadata.TIMESTAMP)
		}
		_, err := c.Refresh(t.Context(), held)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid, file)
	}
}

// Unknown fields of keys and roles are part of what is signed, and change nothing.
func TestFurtherFieldsOfKeysAndRoles(t *testing.T) {
	r := newRepository(t)
	c := r.client()
	held := refreshed(t, c, nil)
	r.rotate(metadata.SNAPSHOT)
	r.mutate[metadata.ROOT] = func(signed map[string]any) {
		for _, k := range signed["keys"].(map[string]any) {
			k.(map[string]any)["keyid_hash_algorithms"] = "md5"
			k.(map[string]any)["extra-field"] = map[string]any{"a": 1, "b": 2}
		}
		for _, role := range signed["roles"].(map[string]any) {
			role.(map[string]any)["another-field"] = "value"
		}
	}
	r.publish(metadata.ROOT)
	if got := refreshed(t, c, held).Versions(); got.Root != 2 || got.Snapshot != 2 {
		t.Errorf("got versions %+v, want root 2 and snapshot 2", got)
	}
}

// What is held may have expired: newer files replace it.
func TestRefreshOfExpiredFiles(t *testing.T) {
	for name, expiring := range map[string]func(r *repository, until time.Time){
		"root":      func(r *repository, until time.Time) { r.root.Signed.Expires = until },
		"timestamp": func(r *repository, until time.Time) { r.timestamp.Signed.Expires = until },
	} {
		t.Run(name, func(t *testing.T) {
			r, now := newRepository(t), today
			c := r.client(func(c *tufrepo.Config) { c.Clock = func() time.Time { return now } })
			expiring(r, today.AddDate(0, 0, 7))
			r.publish(metadata.ROOT)
			held := refreshed(t, c, nil)
			expiring(r, today.AddDate(0, 0, 21))
			r.publish(metadata.ROOT, metadata.TARGETS)
			now = today.AddDate(0, 0, 18)
			want := tufrepo.Versions{Root: 3, Timestamp: 3, Snapshot: 3, Targets: 2}
			if got := refreshed(t, c, held).Versions(); got != want {
				t.Errorf("got versions %+v, want %+v", got, want)
			}
		})
	}
}

// putTarget serves a target under the hash that targets.json lists.
func (r *repository) putTarget(path string, listed, served []byte) {
	sum := sha256.Sum256(listed)
	r.put(fmt.Sprintf("/targets/%s.%s", hex.EncodeToString(sum[:]), path), served)
}

// A target changes with the metadata alone, and never without it.
func TestTargetThatChanges(t *testing.T) {
	r := newRepository(t)
	c := r.client()
	var held *tufrepo.State
	for i := range 3 {
		content := fmt.Appendf(nil, "content %d", i)
		r.sign(metadata.TARGETS, "file", content)
		r.putTarget("file", content, content)
		r.publish(metadata.TARGETS)
		held = refreshed(t, c, held)
		if got, err := c.Target(t.Context(), held, "file"); err != nil || string(got) != string(content) {
			t.Errorf("got %q and %v, want %q", got, err, content)
		}
		r.putTarget("file", content, fmt.Appendf(nil, "hostile %d", i))
		_, err := c.Target(t.Context(), held, "file")
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "file")
	}
}

// A target with an unknown hash alone is not downloaded.
func TestTargetOfAnUnknownHash(t *testing.T) {
	r := newRepository(t)
	content := []byte("content")
	r.targets[metadata.TARGETS].Signed.Targets["file"] = &metadata.TargetFiles{
		Length: int64(len(content)), Hashes: metadata.Hashes{"unknown-hash": make([]byte, 64)},
	}
	r.publish(metadata.TARGETS)
	r.putTarget("file", content, content)
	c := r.client()
	if got, err := c.Target(t.Context(), refreshed(t, c, nil), "file"); err == nil {
		t.Errorf("got %q, want no target", got)
	}
}

// A version below the one that was seen is refused without hashes too.
func TestRollbackWithoutHashes(t *testing.T) {
	for role, back := range map[string]func(r *repository){
		metadata.SNAPSHOT: func(r *repository) { r.snapshot.Signed.Version = 0 },
		metadata.TARGETS:  func(r *repository) { r.publishTargetsAs(1) },
	} {
		r := newRepository(t)
		r.publish(metadata.TARGETS)
		c := r.client()
		held := refreshed(t, c, nil)
		back(r)
		r.publish()
		_, err := c.Refresh(t.Context(), held)
		wantFault(t, err, v1alpha1.ReasonRollback, role+".json")
	}
}

func (r *repository) publishTargetsAs(version int64) {
	r.targets[metadata.TARGETS].Signed.Version = version
	r.write(metadata.TARGETS)
}

// Each pattern on the way must match the path, with its case and separators.
func TestTargetsOfATree(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "A", "*.doc", "*.md", "foo-?.tgz")
	r.delegate(metadata.TARGETS, "B", "releases/*/*")
	r.delegate("B", "C", "releases/x/*")
	r.delegate("B", "D", "releases/y/*.zip")
	wanted := map[string][]string{
		"file": {metadata.TARGETS}, "README.md": {"A"}, "releases/x/x_v1": {"C"}, "releases/y/y_v1.zip": {"D"},
		"releases/z/z_v1.zip": nil, "releases/README.md": nil, "foo-1.tgz": {"A"}, "foo-alpha.tgz": nil,
		"README.MD": nil,
	}
	all := []string{metadata.TARGETS, "A", "B", "C", "D"}
	for path, want := range wanted {
		for _, role := range all {
			if len(want) == 0 && role != metadata.TARGETS && role != "B" || slices.Contains(want, role) {
				r.sign(role, path, []byte(path)) // what A, C and D must not have signed, all of them list
			}
		}
	}
	r.publish(all...)
	c := r.client()
	for path, want := range wanted {
		wantRoles(t, loaded(t, c, nil, path), path, want...)
	}
}

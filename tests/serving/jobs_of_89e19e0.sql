BEGIN TRANSACTION;
CREATE TABLE job_events (
	job_id VARCHAR(32) NOT NULL, 
	number INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	data JSON NOT NULL, 
	created_s FLOAT NOT NULL, 
	PRIMARY KEY (job_id, number), 
	FOREIGN KEY(job_id) REFERENCES jobs (job_id) ON DELETE CASCADE
);
INSERT INTO "job_events" VALUES('00000000000000000000000000000001',1,'queued','{}',1700000003.0);
INSERT INTO "job_events" VALUES('00000000000000000000000000000002',1,'queued','{}',1700000006.0);
INSERT INTO "job_events" VALUES('00000000000000000000000000000003',1,'queued','{}',1700000009.0);
INSERT INTO "job_events" VALUES('00000000000000000000000000000001',2,'preparing','{}',1700000013.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000001',3,'running','{"step": 0, "num_steps": 4, "phase": "denoise"}',1700000016.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000001',4,'progress','{"step": 3, "num_steps": 4, "phase": "denoise", "identity_similarity": 0.71}',1700000019.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000001',5,'succeeded','{"identity_similarity": 0.75, "num_bytes": 3}',1700000022.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000002',2,'preparing','{}',1700000025.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000002',3,'failed','{"code": "AR-FAC-01", "message": "No face.", "fix": "Use another.", "retryable": false}',1700000028.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000003',2,'preparing','{}',1700000031.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000003',3,'progress','{"step": 2, "num_steps": 4}',1700000034.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000004',1,'queued','{}',1700000037.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000005',1,'queued','{}',1700000040.5);
INSERT INTO "job_events" VALUES('00000000000000000000000000000005',2,'cancelled','{}',1700000043.5);
CREATE TABLE jobs (
	job_id VARCHAR(32) NOT NULL, 
	tenant VARCHAR(64) NOT NULL, 
	idempotency_key VARCHAR(255), 
	fingerprint VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	options JSON NOT NULL, 
	picture_name TEXT NOT NULL, 
	video_name TEXT NOT NULL, 
	created_s FLOAT NOT NULL, 
	updated_s FLOAT NOT NULL, 
	started_s FLOAT, 
	finished_s FLOAT, 
	step INTEGER NOT NULL, 
	num_steps INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	max_attempts INTEGER NOT NULL, 
	fence INTEGER NOT NULL, 
	worker_id VARCHAR(64), 
	lease_until_s FLOAT, 
	cancel_requested BOOLEAN NOT NULL, 
	identity_similarity FLOAT, 
	result JSON, 
	failure JSON, 
	last_event INTEGER NOT NULL, 
	PRIMARY KEY (job_id), 
	CONSTRAINT one_job_per_key UNIQUE (tenant, idempotency_key)
);
INSERT INTO "jobs" VALUES('00000000000000000000000000000001','public',NULL,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','succeeded','{"seed": 7, "person": ["left"]}','uploads/00000000000000000000000000000001/reference_image','uploads/00000000000000000000000000000001/driving_video',1700000001.5,1700000022.5,1700000012.0,1700000021.0,3,4,1,3,1,NULL,NULL,0,0.75,'{"file_name": "x.1.mp4", "num_bytes": 3, "sha256": "0000000000000000000000000000000000000000000000000000000000000000", "width_px": 64, "height_px": 96, "num_frames": 8, "fps": 7.0, "identity_similarity": 0.75, "num_frames_without_face": 1, "warnings": ["one"], "stage_s": {"denoise": 2.0}, "gpu_peak_memory_bytes": null, "provenance": {"engine": "diffusion"}}',NULL,5);
INSERT INTO "jobs" VALUES('00000000000000000000000000000002','public',NULL,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','failed','{"seed": 7, "person": ["left"]}','uploads/00000000000000000000000000000002/reference_image','uploads/00000000000000000000000000000002/driving_video',1700000004.5,1700000028.5,1700000024.0,1700000027.0,0,0,1,3,1,NULL,NULL,0,NULL,NULL,'{"code": "AR-FAC-01", "message": "No face.", "fix": "Use another.", "retryable": false}',3);
INSERT INTO "jobs" VALUES('00000000000000000000000000000003','public',NULL,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','running','{"seed": 7, "person": ["left"]}','uploads/00000000000000000000000000000003/reference_image','uploads/00000000000000000000000000000003/driving_video',1700000007.5,1700000034.5,1700000030.0,NULL,2,4,1,3,1,'w1',1700000063.0,0,NULL,NULL,NULL,3);
INSERT INTO "jobs" VALUES('00000000000000000000000000000004','other','k-1','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','queued','{"seed": 7, "person": ["left"]}','uploads/00000000000000000000000000000004/reference_image','uploads/00000000000000000000000000000004/driving_video',1700000036.0,1700000037.5,NULL,NULL,0,0,0,3,0,NULL,NULL,0,NULL,NULL,NULL,1);
INSERT INTO "jobs" VALUES('00000000000000000000000000000005','public',NULL,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','cancelled','{"seed": 7, "person": ["left"]}','uploads/00000000000000000000000000000005/reference_image','uploads/00000000000000000000000000000005/driving_video',1700000039.0,1700000043.5,NULL,1700000042.0,0,0,0,3,0,NULL,NULL,1,NULL,NULL,NULL,2);
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE totals (
	name VARCHAR(64) NOT NULL, 
	label VARCHAR(64) NOT NULL, 
	count INTEGER NOT NULL, 
	total FLOAT NOT NULL, 
	recent FLOAT NOT NULL, 
	PRIMARY KEY (name, label)
);
INSERT INTO "totals" VALUES('queue_wait','',3,52.5,1.43400000000000016342e+01);
INSERT INTO "totals" VALUES('jobs','succeeded:',1,21.0,21.0);
INSERT INTO "totals" VALUES('stage','denoise',1,2.0,2.0);
INSERT INTO "totals" VALUES('job','',1,2.0,2.0);
INSERT INTO "totals" VALUES('identity_similarity','',1,0.75,0.75);
INSERT INTO "totals" VALUES('jobs','failed:AR-FAC-01',1,24.0,24.0);
INSERT INTO "totals" VALUES('jobs','cancelled:',1,4.5,4.5);
CREATE TABLE workers (
	worker_id VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	detail TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	heartbeat_s FLOAT NOT NULL, 
	PRIMARY KEY (worker_id)
);
INSERT INTO "workers" VALUES('w1','ready','model-1',1149,'vm',1700000010.5);
CREATE INDEX jobs_by_state ON jobs (state, created_s);
CREATE INDEX jobs_by_tenant ON jobs (tenant, created_s);
COMMIT;

DROP INDEX activity.activities_calls;
